// The strip: a small picture for each photo, with its state and its answer, that leads to its card.

import { build, byId, show, write } from '../page/dom.js';
import { bestName, bestPercent, stateName, stateText } from './summary.js';

const MARKS = { asking: '?', cancelled: '×', done: '✓', failed: '!', paused: '‖' };

export class Thumbnails {
  #items = new Map();
  #onChoose;

  constructor(onChoose) {
    this.#onChoose = onChoose;
  }

  prepend(cards) {
    byId('strip').prepend(...cards.map((card) => this.#make(card)));
  }

  remove(card) {
    this.#items.get(card).element.remove();
    this.#items.delete(card);
  }

  clear() {
    this.#items.clear();
    byId('strip').replaceChildren();
  }

  draw(card) {
    const item = this.#items.get(card);
    if (!item) return;
    const { image, mark, text, number } = item.parts;
    if (card.previewUrl && !image.src) image.src = card.previewUrl;
    show(image, Boolean(card.previewUrl));
    item.element.dataset.of = card.state;
    mark.textContent = MARKS[card.state] ?? '…';
    write(text, () => bestName(card) || stateName(card));
    number.textContent = bestPercent(card);
    const named = () => `${card.file.name}: ${stateText(card)}`;
    for (const attribute of ['aria-label', 'title']) write(item.parts.button, named, attribute);
  }

  #make(card) {
    const item = build('thumbnail');
    item.parts.button.addEventListener('click', () => this.#onChoose(card));
    this.#items.set(card, item);
    return item.element;
  }
}
