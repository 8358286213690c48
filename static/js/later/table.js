// Many photos as a table: one row each, sorted by any column, filtered by what is typed.

import { build, byId, show, write } from '../page/dom.js';
import { chance, t } from '../page/words.js';
import { best, bestName, bestPercent, stateName } from '../cards/summary.js';

const VALUES = {
  file: (card) => card.file.name,
  answer: bestName,
  probability: (card) => (bestPercent(card) ? chance(best(card)) : ''),
  state: stateName,
};

export class Table {
  #cards = [];
  #rows = new Map();
  #sortedBy = null;
  #isDescending = false;
  #isDue = false;
  #onChoose;

  constructor(onChoose) {
    this.#onChoose = onChoose;
    byId('filter').addEventListener('input', () => this.#arrange());
    for (const button of byId('table').querySelectorAll('[data-sort]')) {
      button.addEventListener('click', () => this.#sort(button.dataset.sort));
    }
    addEventListener('languagechange', () => this.#arrange());
  }

  // Take the cards, in their order without sorting.
  use(cards) {
    this.#cards = cards;
    for (const card of this.#rows.keys()) if (!cards.includes(card)) this.#rows.delete(card);
    for (const card of cards) if (!this.#rows.has(card)) this.#make(card);
    this.#arrange();
  }

  draw(card) {
    const row = this.#rows.get(card);
    if (!row) return;
    const { image, answer, narrow, probability, state } = row.parts;
    if (card.previewUrl && !image.src) image.src = card.previewUrl;
    show(image, Boolean(card.previewUrl));
    row.element.dataset.of = card.state;
    write(answer, () => (hasFailed(card) ? card.reason() : bestName(card)));
    write(narrow, () => (best(card) || hasFailed(card) ? '' : stateName(card)));
    probability.textContent = bestPercent(card);
    write(state, () => stateName(card));
    this.#arrangeSoon();
  }

  #make(card) {
    const row = build('row');
    const { open, file } = row.parts;
    file.textContent = card.file.name;
    open.title = card.file.name;
    open.addEventListener('click', () => this.#onChoose(card));
    this.#rows.set(card, row);
    this.draw(card);
  }

  #sort(column) {
    if (this.#sortedBy !== column) [this.#sortedBy, this.#isDescending] = [column, column === 'probability'];
    else this.#isDescending = !this.#isDescending;
    this.#arrange();
  }

  // Many cards change within one frame.
  #arrangeSoon() {
    if (this.#isDue || byId('table').hidden) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#arrange();
    });
  }

  #arrange() {
    const shown = this.#sorted(this.#cards.filter((card) => this.#matches(card)));
    const body = byId('rows');
    const elements = shown.map((card) => this.#rows.get(card).element);
    const isSame = elements.length === body.childElementCount && elements.every((row, at) => row === body.children[at]);
    if (!isSame) body.replaceChildren(...elements); // which would lose the focus
    const { length } = shown;
    write(byId('filtered'), () => (length < this.#cards.length ? t('js.filtered', { shown: length }) : ''));
    for (const heading of byId('table').querySelectorAll('th')) {
      const isSorted = heading.querySelector(`[data-sort="${this.#sortedBy}"]`);
      if (isSorted) heading.setAttribute('aria-sort', this.#isDescending ? 'descending' : 'ascending');
      else heading.removeAttribute('aria-sort');
    }
  }

  #matches(card) {
    const wanted = byId('filter').value.trim().toLowerCase();
    const { label = '', label_zh: chinese } = best(card) ?? {};
    const texts = [card.file.name, label, chinese ?? '', stateName(card), hasFailed(card) ? card.reason() : ''];
    return texts.some((text) => text.toLowerCase().includes(wanted));
  }

  #sorted(cards) {
    const value = VALUES[this.#sortedBy];
    if (!value) return cards;
    const order = this.#isDescending ? -1 : 1;
    const compare = (first, second) => (typeof first === 'number' ? first - second
      : first.localeCompare(second, document.documentElement.lang, { numeric: true }));
    const filled = cards.filter((card) => value(card) !== '');
    const empty = cards.filter((card) => value(card) === ''); // always last
    return [...filled.sort((first, second) => order * compare(value(first), value(second))), ...empty];
  }
}

function hasFailed(card) {
  return card.state === 'failed';
}
