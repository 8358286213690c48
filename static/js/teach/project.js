// One project as the server has it. It dispatches `change` when its classes, photos or settings may have changed, and
// `report` when its accuracy has been measured again, which follows every change.

import { names, t } from '../page/words.js';
import { addressOf, call } from './api.js';
import { MAX_EDIT, NONE } from './facts.js';

// The numbers of the classes with which a project begins.
export const FIRST_CLASSES = [1, 2];

export class Project extends EventTarget {
  // Photos and classes that are about to be deleted: not shown any more, but can still be brought back.
  hidden = { photos: new Set(), classes: new Set() };
  report = null;
  #data = null;
  #isDue = false;
  #isBusy = false;
  #renames = 0;

  constructor(name, onTrouble) {
    super();
    this.name = name;
    this.onTrouble = onTrouble;
  }

  get data() {
    return this.#data;
  }

  // The classes, with "none of these" at the end.
  get classes() {
    const all = this.#data.classes.filter(({ label }) => !this.hidden.classes.has(label));
    const none = all.find(({ label }) => label === NONE) ?? { label: NONE, label_zh: null, photos: 0 };
    return [...all.filter(({ label }) => label !== NONE), none];
  }

  // The newest number of what the report is about.
  get revision() {
    return this.#data?.revision ?? 0;
  }

  // Whether there are photos of two classes, without which nothing can be told apart.
  get canAnswer() {
    return this.classes.filter(({ photos }) => photos > 0).length > 1;
  }

  address(...rest) {
    return addressOf(this.name, ...rest);
  }

  async load() {
    await this.#read();
    this.refresh();
  }

  // Move photos to a class, by PATCH, or delete them, by DELETE. `isLast` says that the page is left.
  async changePhotos(method, photos, { label, isLast } = {}) {
    const address = this.address('photos');
    for (let at = 0; at < photos.length; at += MAX_EDIT) {
      const body = { photos: photos.slice(at, at + MAX_EDIT), label };
      const sent = call(method, address, { body, isLast });
      if (!isLast) await sent; // a page that is left waits for nothing
    }
    this.refresh();
  }

  async makeClass(label) {
    await call('PUT', this.address('classes', label), { body: {} });
    this.refresh();
  }

  async renameClass(label, names) {
    await call('PUT', this.address('classes', label), { body: names });
    this.#renames += 1;
    this.refresh();
  }

  async listPhotos(label, limit) {
    const query = new URLSearchParams({ label, limit });
    return (await call('GET', `${this.address('photos')}?${query}`)).json();
  }

  // Say that something has changed: the project, and then its report, are fetched once more.
  async refresh() {
    this.#isDue = true;
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      while (this.#isDue) {
        this.#isDue = false;
        await this.#fetch();
      }
    } catch (error) {
      this.onTrouble(error);
    } finally {
      this.#isBusy = false;
    }
  }

  // An answer that was on its way while a class was renamed may have the old name, and is asked for again.
  async #read() {
    let before;
    let data;
    do {
      before = this.#renames;
      data = await (await call('GET', this.address())).json();
    } while (before !== this.#renames);
    this.#data = data;
    this.#tell('change');
  }

  async #fetch() {
    await this.#read();
    if (this.report?.revision === this.revision) return;
    this.report = await (await call('GET', this.address('report'))).json();
    this.#tell('report');
  }

  #tell(kind) {
    this.dispatchEvent(new Event(kind));
  }
}

// A class's name in the reader's language.
export function className({ label, label_zh: chinese }) {
  return label === NONE ? t('js.teach.none') : names({ label, label_zh: chinese })[0];
}

// The name of a class of a project by its label, which an older answer may name although it is gone.
export function nameOf(project, label) {
  return className(project.classes.find((each) => each.label === label) ?? { label });
}

