// Photos of the service's index that look like a card's photo; loaded only where the service has an index.

import { build, byId, show, write } from '../page/dom.js';
import { t } from '../page/words.js';
import { explain, send } from '../teach/api.js';
import { showThumbnail } from '../teach/thumbnails.js';

const MAX_SHOWN = 12;
const offers = new WeakMap();

// Answers keeps there what was sent of its photo.
new MutationObserver((changes) => {
  for (const { target: card } of changes) {
    if (card.dataset.state === 'done') offer(card, card.querySelector('[data-part=answers]').blob);
  }
}).observe(byId('cards'), { subtree: true, attributeFilter: ['data-state'] });

function offer(card, blob) {
  if (!offers.has(card)) offers.set(card, new Offer(card));
  offers.get(card).use(blob);
}

// The button of one card, with the photos that were found; the style sheet hides it until the card has an answer.
class Offer {
  #parts;
  #blob = null;
  #searched = null;

  constructor(card) {
    const { element, parts } = build('alike');
    this.#parts = parts;
    const file = card.querySelector('[data-part=file]').textContent;
    const { alike: button } = parts;
    write(button, () => t('js.button_of', { button: button.textContent, file }), 'aria-label');
    button.addEventListener('click', () => this.#open(parts.alikePanel.hidden));
    card.querySelector('.asks').after(element);
  }

  // Take what was sent of the photo, which is another blob if another part was asked about.
  use(blob) {
    this.#blob = blob;
    this.#open(false);
  }

  #open(isOpen) {
    this.#parts.alike.setAttribute('aria-expanded', isOpen);
    show(this.#parts.alikePanel, isOpen);
    if (isOpen && this.#searched !== this.#blob) this.#search(this.#blob);
  }

  async #search(blob) {
    const { alikeSaid: said, alikeList: list } = this.#parts;
    this.#searched = blob;
    list.replaceChildren();
    write(said, () => t('js.alike.searching'));
    try {
      const { similar } = await send(`api/v1/search?count=${MAX_SHOWN}`, blob, new AbortController().signal);
      if (this.#searched !== blob) return;
      list.replaceChildren(...similar.map(item));
      write(said, () => t(similar.length > 0 ? 'js.alike.found' : 'js.alike.none', { count: similar.length }));
    } catch (error) {
      if (this.#searched !== blob) return;
      this.#searched = null; // so that the button tries again
      write(said, () => explain(error));
    }
  }
}

function item({ name, similarity, thumbnail }) {
  const { element, parts } = build('alike-photo');
  parts.name.textContent = name;
  write(parts.similarity, () => t('js.alike.similarity', { number: similarity.toFixed(2) }));
  showThumbnail(parts.image, `api/v1/${thumbnail}`);
  return element;
}
