// Photos of the service's index that look like a card's photo.

import { build, show, write } from '../page/dom.js';
import { t } from '../page/words.js';
import { explain, send } from '../teach/api.js';
import { showThumbnail } from '../teach/thumbnails.js';

const MAX_SHOWN = 12;
// What was last searched for in each panel.
const searched = new WeakMap();

// Show or hide the photos that look like `blob`, which is what was sent of the card's photo.
export async function toggleAlike({ alike, alikePanel: panel, alikeSaid: said, alikeList: list }, blob) {
  const isOpen = panel.hidden;
  alike.setAttribute('aria-expanded', isOpen);
  show(panel, isOpen);
  if (!isOpen || searched.get(panel) === blob) return;
  searched.set(panel, blob);
  list.replaceChildren();
  write(said, () => t('js.alike.searching'));
  try {
    const { similar } = await send(`api/v1/search?count=${MAX_SHOWN}`, blob, new AbortController().signal);
    if (searched.get(panel) !== blob) return; // another part of the photo was searched for since
    list.replaceChildren(...similar.map(item));
    write(said, () => t(similar.length > 0 ? 'js.alike.found' : 'js.alike.none', { count: similar.length }));
  } catch (error) {
    if (searched.get(panel) !== blob) return;
    searched.delete(panel); // so that the button tries again
    write(said, () => explain(error));
  }
}

function item({ name, similarity, thumbnail }) {
  const { element, parts } = build('alike');
  parts.name.textContent = name;
  write(parts.similarity, () => t('js.alike.similarity', { number: similarity.toFixed(2) }));
  showThumbnail(parts.image, `api/v1/${thumbnail}`);
  return element;
}
