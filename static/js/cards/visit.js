// All photos of this visit: the cards, newest first, the strip of thumbnails, and clearing them. Memory only.

import { Card } from './card.js';
import { announce, byId, show, write } from '../page/dom.js';
import { Queue } from './queue.js';
import { t } from '../page/words.js';

const IN_FLIGHT = 3;
const MARKS = { asking: '?', cancelled: '×', done: '✓', failed: '!' };

export class Visit {
  #cards = [];
  #thumbnails = new Map();
  #queue = new Queue(IN_FLIGHT);

  constructor() {
    byId('clear').addEventListener('click', () => this.clear());
  }

  // Make a card for each file and set it to work.
  add(files) {
    const cards = files.map((file) => this.#makeCard(file));
    this.#cards.unshift(...cards);
    byId('cards').prepend(...cards.map(({ element }) => element));
    byId('strip').prepend(...cards.map((card) => this.#thumbnails.get(card).item));
    if (cards.length > 1) announce(t('js.added', { count: cards.length }));
    for (const card of cards) card.start();
    this.#refresh();
    cards[0]?.element.scrollIntoView({ block: 'nearest' });
  }

  clear() {
    for (const card of this.#cards.splice(0)) card.dispose();
    this.#thumbnails.clear();
    byId('cards').replaceChildren();
    byId('strip').replaceChildren();
    this.#refresh();
    byId('file').focus();
    announce(t('js.cleared'));
  }

  #makeCard(file) {
    const card = new Card(file, {
      queue: this.#queue,
      onChange: (changed) => this.#update(changed),
      onRemove: (removed) => this.#remove(removed),
    });
    this.#thumbnails.set(card, thumbnail(card));
    return card;
  }

  #remove(card) {
    const next = card.element.nextElementSibling ?? card.element.previousElementSibling ?? byId('file');
    card.dispose();
    card.element.remove();
    this.#thumbnails.get(card).item.remove();
    this.#thumbnails.delete(card);
    this.#cards.splice(this.#cards.indexOf(card), 1);
    this.#refresh();
    next.focus();
    announce(t('js.removed', { file: card.file.name }));
  }

  #update(card) {
    if (this.#thumbnails.has(card)) this.#thumbnails.get(card).draw();
    this.#refresh();
  }

  #refresh() {
    const count = this.#cards.length;
    const done = this.#cards.filter(({ state }) => state === 'done').length;
    show(byId('visit'), count > 0);
    show(byId('strip'), count > 1);
    write(byId('count'), () => t('js.count', { done, count }));
  }
}

// A button that leads to the card: its photo, or where there is none to show, a mark that says what is the matter.
function thumbnail(card) {
  const item = document.createElement('li');
  const button = Object.assign(document.createElement('button'), { type: 'button', title: card.file.name });
  const image = Object.assign(document.createElement('img'), { alt: '', hidden: true });
  button.setAttribute('aria-label', card.file.name);
  const mark = Object.assign(document.createElement('span'), { ariaHidden: 'true' });
  button.append(image, mark);
  button.addEventListener('click', () => {
    card.element.scrollIntoView({ block: 'start' });
    card.element.focus({ preventScroll: true });
  });
  item.append(button);
  const draw = () => {
    if (card.previewUrl && !image.src) image.src = card.previewUrl;
    show(image, Boolean(card.previewUrl));
    show(mark, !card.previewUrl);
    mark.textContent = MARKS[card.state] ?? '…';
  };
  return { item, draw };
}
