// Photos and folders dropped anywhere on the page. Text, links and the page's own pictures are no photos.

import { suffixes } from '../photos/facts.js';
import { byId, show } from './dom.js';
import { complain } from './message.js';
import { t } from './words.js';

// Browsers tell of a drag over the page at least every 350 ms or so (HTML, drag-and-drop processing model). When they
// say no more, it has ended: not all of them tell of a drag that was cancelled.
const MAX_SILENCE_MS = 1000;

const markPage = (target) => show(byId('drop-now'), Boolean(target));

let isOwn = false;
let timer = 0;
let mark = markPage;

// Give files with the element on which they were dropped. `marking(target)` shows that photos may be dropped on an
// element, and `marking(null)` that none are held over the page any more.
export function listenToDrops(give, marking = markPage) {
  mark = marking;
  addEventListener('dragstart', () => { isOwn = true; });
  addEventListener('dragend', () => { isOwn = false; });
  addEventListener('pointermove', endDrag); // comes in no drag, so one has ended
  addEventListener('dragenter', allow);
  addEventListener('dragover', allow);
  addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) lower();
  });
  addEventListener('drop', (event) => drop(event, give));
}

function endDrag() {
  isOwn = false;
  lower();
}

function allow(event) {
  if (isForField(event)) return;
  event.preventDefault(); // else a link would be followed
  const transfer = event.dataTransfer;
  const mayBePhoto = !isOwn && mayCarryFiles(transfer);
  if (transfer) transfer.dropEffect = mayBePhoto ? 'copy' : 'none';
  if (mayBePhoto && transfer.types.includes('Files')) raise(event.target);
}

function drop(event, give) {
  lower();
  if (isForField(event)) return;
  event.preventDefault();
  if (!isOwn && mayCarryFiles(event.dataTransfer)) take(event.dataTransfer, (files) => give(files, event.target));
}

async function take(transfer, give) {
  const isFromDisk = transfer.types.includes('Files') || transfer.getData('text/uri-list').startsWith('file:');
  const isHandedOver = transfer.items.length > 0 && transfer.types.includes('Files');
  const { files, isCut } = await filesIn(transfer);
  if (files.length > 0) give(files);
  else complain(() => t(isFromDisk && !isHandedOver ? 'js.no_drop' : 'js.no_files'));
  if (isCut) complain(() => t('js.folder_cut', { count: files.length }));
}

// The browser forgets a drop's items when its event ends, so they are read before anything is waited for.
async function filesIn(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some(({ isDirectory }) => isDirectory)) return { files: [...transfer.files], isCut: false };
  const { filesOf } = await import('../later/folders.js');
  return filesOf(entries, suffixes);
}

// Text may be dropped into a field.
function isForField({ target, dataTransfer }) {
  return Boolean(target.closest?.('input:not([type=file]), textarea')) && !dataTransfer?.types.includes('Files');
}

// WebKitGTK names files dragged from a folder as addresses; a picture or a link of another page comes with HTML.
function mayCarryFiles(transfer) {
  const types = transfer?.types ?? [];
  return types.includes('Files') || (types.includes('text/uri-list') && !types.includes('text/html'));
}

function raise(target) {
  clearTimeout(timer);
  timer = setTimeout(lower, MAX_SILENCE_MS);
  mark(target);
}

function lower() {
  clearTimeout(timer);
  mark(null);
}
