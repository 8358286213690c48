// Which things the model knows: its classes, searched by any of their names.

import { url } from '../server/address.js';
import { currentKey, keyIsMissing, whenKey } from '../page/access.js';
import { withModel } from '../server/choice.js';
import { fetchInTime } from '../page/connection.js';
import { byId, write } from '../page/dom.js';
import { fullName, names, t } from '../page/words.js';

let classes = [];

export async function openClasses() {
  byId('class-query').addEventListener('input', show);
  addEventListener('languagechange', show);
  addEventListener('modelchange', fetchClasses);
  await fetchClasses();
}

async function fetchClasses() {
  try {
    if (keyIsMissing()) await whenKey('unauthorized', '');
    const headers = currentKey() ? { Authorization: `Bearer ${currentKey()}` } : {};
    const answer = await fetchInTime(url(withModel('api/v1/labels')), (response) => response.json(), { headers });
    classes = answer.labels;
    show();
  } catch (error) {
    console.warn('The classes could not be fetched.', error);
    write(byId('class-said'), () => t('problem.internal-error'));
  }
}

function show() {
  const wanted = byId('class-query').value.trim().toLowerCase();
  const found = wanted ? search(wanted) : [];
  byId('class-list').replaceChildren(...found.map(item));
  write(byId('class-said'), () => {
    if (!wanted) return classes.length > 0 ? t('js.classes', { count: classes.length }) : '';
    return found.length > 0 ? t('js.classes_found', { count: found.length }) : t('js.classes_none', { wanted });
  });
}

// Find classes by a part of any name, those of which it is a whole word first. If there is none, find those that share a
// word with it, the nearest first, as `search_labels` in app/model/labels.py does.
function search(wanted) {
  const found = classes.filter((each) => matches(each, wanted));
  const words = wordsOf(wanted);
  const share = ({ label }) => wordsOf(label).filter((word) => words.includes(word)).length / wordsOf(label).length;
  if (found.length === 0) return classes.filter(share).sort((first, second) => share(second) - share(first));
  const isWord = ({ label }) => wordsOf(label).includes(wanted);
  return found.sort((first, second) => isWord(second) - isWord(first));
}

function wordsOf(text) {
  return text?.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];
}

function matches({ label = '', label_zh: chinese, label_gloss: about }, wanted) {
  return [label, chinese, about].some((text) => text?.toLowerCase().includes(wanted));
}

function item(each) {
  const element = document.createElement('li');
  write(element, () => [fullName(each), names(each)[1]].filter(Boolean).join(' · '));
  return element;
}
