// Photos and folders that are dropped, chosen as a folder, or pasted: which class they belong to.

import { byId, show } from '../page/dom.js';
import { listenToDrops } from '../page/drops.js';
import { listenToChooser, listenToPaste } from '../page/inputs.js';
import { complain, hideMessage } from '../page/message.js';
import { t } from '../page/words.js';
import { suffixes } from '../photos/facts.js';
import { isPhoto, pathOf } from '../later/folders.js';
import { unpacked } from './archive.js';

// `cardList` makes classes and takes photos, and `test(file)` tries one.
export function listenToIntake(cardList, test) {
  const give = (files, target) => {
    hideMessage();
    distribute(files, target, cardList, test);
  };
  listenToDrops(give, mark);
  listenToPaste((files, target) => (placeOf(target) ? give(files, target) : test(files[0])));
  const folder = byId('folder'); // which gives all files that are in it
  if ('webkitdirectory' in folder) listenToChooser(folder, (files) => give(files.filter((file) => isPhoto(pathOf(file), suffixes)), null));
  else show(byId('folder-choice'), false);
}

// A class or the test takes all that is dropped on it; elsewhere folders and archives become classes.
function distribute(files, target, cardList, test) {
  const place = placeOf(target);
  if (place?.id === 'trial') test(files[0]);
  else if (place) cardList.give(files, place.dataset.drop);
  else makeClasses(files, cardList);
}

async function makeClasses(files, cardList) {
  const groups = new Map();
  for (const file of await unpacked(files)) {
    const label = labelOf(file);
    if (!groups.has(label)) groups.set(label, []);
    groups.get(label).push(file);
  }
  if (groups.delete('')) complain(() => t('js.teach.which_class'));
  for (const [label, of] of groups) {
    if (await cardList.ensureForFolder(label)) cardList.uploads.add(of, label);
  }
}

// A photo in a folder belongs to the class of that name, so a folder of folders becomes several.
function labelOf(file) {
  const folders = pathOf(file).split('/').slice(0, -1);
  return folders.at(-1) ?? '';
}

function placeOf(target) {
  return (target?.closest ? target : target?.parentElement)?.closest('[data-drop]') ?? null;
}

let marked = null;

function mark(target) {
  const place = target ? placeOf(target) ?? byId('cards') : null;
  if (place === marked) return;
  marked?.classList.remove('drop-here');
  place?.classList.add('drop-here');
  marked = place;
}
