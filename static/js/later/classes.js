// Which things the model knows: its classes, searched by any of their names.

import { url } from '../server/address.js';
import { currentKey, keyIsMissing, whenKey } from '../page/access.js';
import { withModel } from '../server/choice.js';
import { fetchInTime } from '../page/connection.js';
import { byId, write } from '../page/dom.js';
import { fullName, names, t } from '../page/words.js';

const MAX_SHOWN = 30;

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
  const found = wanted ? classes.filter((each) => matches(each, wanted)) : [];
  byId('class-list').replaceChildren(...found.slice(0, MAX_SHOWN).map(item));
  write(byId('class-said'), () => {
    if (!wanted) return classes.length > 0 ? t('js.classes', { count: classes.length }) : '';
    return found.length > 0 ? t('js.classes_found', { count: found.length }) : t('js.classes_none', { wanted });
  });
}

function matches({ label = '', label_zh: chinese, label_gloss: about }, wanted) {
  return [label, chinese, about].some((text) => text?.toLowerCase().includes(wanted));
}

function item(each) {
  const element = document.createElement('li');
  write(element, () => [fullName(each), names(each)[1]].filter(Boolean).join(' · '));
  return element;
}
