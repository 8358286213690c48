// All photos of this visit: the cards, newest first, the strip of thumbnails or the table, and clearing them. Memory only.

import { announce, byId, show, write } from '../page/dom.js';
import { t } from '../page/words.js';
import { Card } from './card.js';
import { listenForEscape } from './look.js';
import { Lane, Queue } from './queue.js';
import { Thumbnails } from './thumbnails.js';

const IN_FLIGHT = 3;
const SHOWN = 3; // answers of a photo
const MANY = 20; // photos at once open the table
const MAX_VERDICTS_READ = 3; // at once; beyond it only the progress is read out
const PROGRESS_EVERY_MS = 5000;

export class Visit {
  queue = new Queue(IN_FLIGHT);
  lane = new Lane();
  mayBeSentWhole = false;
  #cards = [];
  #thumbnails = new Thumbnails((card) => this.#goTo(card));
  #table = null; // until it is first wanted
  #isTable = false;
  #progressDue = 0;

  constructor() {
    byId('clear').addEventListener('click', () => this.clear());
    byId('as-cards').addEventListener('click', () => this.#show(false));
    byId('as-table').addEventListener('click', () => this.#show(true));
    byId('save-csv').addEventListener('click', () => this.#save('csv'));
    byId('save-json').addEventListener('click', () => this.#save('json'));
    byId('send-whole').addEventListener('click', () => this.#sendWhole());
    listenForEscape();
  }

  // Make a card for each file and set it to work.
  add(files) {
    const cards = files.map((file) => new Card(file, this));
    this.#cards.unshift(...cards);
    byId('cards').prepend(...cards.map(({ element }) => element));
    this.#thumbnails.prepend(cards);
    this.#table?.use(this.#cards);
    if (cards.length > 1) announce(t('js.added', { count: cards.length }));
    if (cards.length >= MANY) this.#show(true);
    for (const card of cards) card.start();
    this.#refresh();
    const place = this.#isTable ? byId('visit') : cards[0]?.element;
    place?.scrollIntoView({ block: 'nearest' });
  }

  clear() {
    for (const card of this.#cards.splice(0)) card.dispose();
    this.mayBeSentWhole = false;
    this.#thumbnails.clear();
    this.#table?.use(this.#cards);
    byId('cards').replaceChildren();
    this.#show(false);
    this.#refresh();
    byId('file').focus();
    announce(t('js.cleared'));
  }

  remove(card) {
    const next = card.element.nextElementSibling ?? card.element.previousElementSibling ?? byId('file');
    card.dispose();
    card.element.remove();
    this.#thumbnails.remove(card);
    this.#cards.splice(this.#cards.indexOf(card), 1);
    this.#table?.use(this.#cards);
    this.#refresh();
    next.focus();
    announce(t('js.removed', { file: card.file.name }));
  }

  // A card has changed its state or its picture.
  changed(card) {
    this.#thumbnails.draw(card);
    this.#table?.draw(card);
    this.#refresh();
  }

  // Read out what a card says, unless too many are in progress for a listener to follow.
  announceOf(card, text) {
    const atWork = this.#cards.filter(({ isSettled, state }) => !isSettled && state !== 'asking').length;
    if (atWork < MAX_VERDICTS_READ && !this.#progressDue) announce(text);
    else this.#announceProgress(atWork);
  }

  #announceProgress(atWork) {
    const say = () => {
      this.#progressDue = 0;
      announce(t('js.count', this.#numbers()));
    };
    if (atWork === 0) {
      clearTimeout(this.#progressDue);
      say();
    } else this.#progressDue ||= setTimeout(say, PROGRESS_EVERY_MS);
  }

  #sendWhole() {
    this.mayBeSentWhole = true;
    for (const card of this.#asking()) card.sendWhole();
    byId('visit-title').focus();
    this.#refresh();
  }

  #asking() {
    return this.#cards.filter(({ state }) => state === 'asking');
  }

  #goTo(card) {
    this.#show(false);
    card.element.scrollIntoView({ block: 'start' });
    card.element.focus({ preventScroll: true });
  }

  #show(isTable) {
    this.#isTable = isTable;
    if (isTable && !this.#table) this.#makeTable();
    byId('as-cards').setAttribute('aria-pressed', String(!isTable));
    byId('as-table').setAttribute('aria-pressed', String(isTable));
    show(byId('table'), isTable);
    show(byId('cards'), !isTable);
    this.#table?.use(this.#cards);
    this.#refresh();
  }

  async #makeTable() {
    const { Table } = await import('../later/table.js');
    this.#table ??= new Table((card) => this.#goTo(card));
    this.#table.use(this.#cards);
  }

  async #save(kind) {
    const { save } = await import('../later/download.js');
    save(kind, this.#cards, SHOWN);
  }

  #numbers() {
    return { done: this.#cards.filter(({ isSettled }) => isSettled).length, count: this.#cards.length };
  }

  #refresh() {
    const count = this.#cards.length;
    const asking = this.#asking().length;
    show(byId('visit'), count > 0);
    show(byId('views'), count > 1);
    show(byId('strip'), count > 1 && !this.#isTable);
    show(byId('downloads'), this.#cards.some(({ state }) => state === 'done'));
    show(byId('consent'), asking > 1);
    write(byId('consent-text'), () => t('js.ask_all', { count: asking }));
    write(byId('count'), () => t('js.count', this.#numbers()));
  }
}
