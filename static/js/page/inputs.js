// The ways to give the page a photo: choose, camera, drop, paste, samples. All end in `give(files)`.

import { fetchInTime } from './connection.js';
import { announce, byId, say, show } from './dom.js';
import { sentences, t } from './words.js';

export function listen(give) {
  byId('file').multiple = true;
  for (const input of [byId('file'), byId('camera')]) listenToChooser(input, give);
  byId('pick').addEventListener('submit', (event) => event.preventDefault());
  listenToDrops(give);
  addEventListener('paste', (event) => {
    const isTyped = event.target.type === 'password' && event.clipboardData.files.length === 0; // a key into its field
    if (!isTyped) take(event.clipboardData, give);
  });
  for (const button of document.querySelectorAll('[data-sample]')) {
    button.addEventListener('click', () => giveSample(button.dataset, give));
  }
}

function listenToChooser(input, give) {
  const giveChosen = () => {
    const files = [...input.files];
    input.value = ''; // so that the same photo can be chosen again
    if (files.length > 0) give(files);
  };
  input.addEventListener('change', giveChosen);
  giveChosen(); // what was chosen while this script was on its way
  // It looks like a button, so Enter opens it as it would a button; browsers only let Space do so.
  input.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return;
    event.preventDefault();
    input.click();
  });
}

function listenToDrops(give) {
  let depth = 0; // enter and leave are told for every element on the way
  const enter = (change) => {
    depth = Math.max(0, depth + change);
    show(byId('drop-now'), depth > 0);
  };
  addEventListener('dragenter', () => enter(1));
  addEventListener('dragleave', () => enter(-1));
  addEventListener('dragover', (event) => event.preventDefault());
  addEventListener('drop', (event) => {
    event.preventDefault();
    enter(-depth);
    take(event.dataTransfer, give);
  });
}

// Take the files of a drop or of the clipboard; what holds none is answered with a sentence.
function take(transfer, give) {
  const files = [...(transfer?.files ?? [])];
  if (files.length > 0) give(files);
  else complain(() => t('js.no_files'));
}

function complain(trouble) {
  say(byId('message'), trouble);
  announce(trouble());
}

async function giveSample({ sample, name }, give) {
  try {
    const blob = await fetchInTime(sample, (response) => response.blob());
    give([new File([blob], name, { type: 'image/webp' })]);
  } catch (error) {
    console.warn('The sample is not to be had.', error);
    complain(() => sentences('problem.internal-error', 'advice.internal-error'));
  }
}
