// All classes of the project: their cards, and what is done to classes and photos, which can be undone.

import { announce, byId, show } from '../page/dom.js';
import { t } from '../page/words.js';
import { call } from './api.js';
import { unpacked } from './archive.js';
import { Camera } from './camera.js';
import { ClassCard } from './card.js';
import { NONE } from './facts.js';
import { FIRST_CLASSES, nameOf } from './project.js';
import { Selection } from './selection.js';
import { Undo } from './undo.js';
import { Uploads } from './uploads.js';

// Browsers let a page that is left send 64 KiB; each name of a photo takes 67 bytes.
const MAX_LAST_PHOTOS = 900;

export class CardList {
  #cards = new Map(); // by the class's label

  constructor(project) {
    this.project = project;
    this.undo = new Undo();
    this.camera = new Camera();
    this.uploads = new Uploads(project, this.undo);
    const onMove = (photos, label) => this.movePhotos(photos, label);
    this.removePhotos = (photos) => this.#removePhotos(photos);
    this.selection = new Selection(project, { onMove, onDelete: this.removePhotos });
    byId('new-class').addEventListener('click', () => this.#makeNext());
    project.addEventListener('change', () => this.draw());
    project.addEventListener('report', () => {
      for (const card of this.#cards.values()) card.drawReport();
    });
    addEventListener('languagechange', () => this.draw());
    addEventListener('keydown', (event) => { if (event.key === 'Escape') this.selection.clear(); });
    addEventListener('beforeunload', (event) => this.#finish(event));
  }

  draw() {
    const { classes } = this.project;
    for (const [label, card] of this.#cards) {
      if (classes.some((each) => each.label === label)) continue;
      card.element.remove();
      this.#cards.delete(label);
    }
    for (const each of classes) {
      if (!this.#cards.has(each.label)) this.#cards.set(each.label, new ClassCard(each, this));
    }
    const elements = classes.map(({ label }) => this.#cards.get(label).element);
    const list = byId('cards');
    const isSame = elements.length === list.childElementCount && elements.every((one, at) => one === list.children[at]);
    if (!isSame) list.replaceChildren(...elements); // which would lose the focus
    for (const each of classes) this.#cards.get(each.label).draw(each);
    show(byId('new-class'), classes.length <= this.project.data.max_classes);
  }

  // Make a class if there is none of this name. Returns whether it is there now.
  async ensure(label) {
    if (this.project.hidden.classes.has(label)) await this.undo.flush();
    if (label === NONE || this.project.data.classes.some((each) => each.label === label)) return true;
    return this.#try(() => this.project.makeClass(label));
  }

  // Make a class for a folder, unless there is one of this name; one with which the project began takes the name.
  async ensureForFolder(label) {
    const isThere = this.project.data.classes.some((each) => each.label === label);
    const card = isThere ? null : [...this.#cards.values()].find((each) => this.#isUntouched(each.each));
    return card ? this.#try(() => this.#giveNames(card, { label, label_zh: '' })) : this.ensure(label);
  }

  #isUntouched({ label, label_zh: chinese, photos }) {
    const names = FIRST_CLASSES.map((number) => t('js.teach.class', { number }));
    const isWanted = this.uploads.hasFor(label) || this.project.hidden.classes.has(label);
    return names.includes(label) && !chinese && photos === 0 && !isWanted;
  }

  // Give files to a class, and those in archives.
  async give(files, label) {
    const batch = this.uploads.open(label); // before, since the class may be renamed until all is unpacked
    for (const file of await unpacked(files)) batch.add(file);
    batch.close();
  }

  async movePhotos(photos, label) {
    const moved = photos.filter((photo) => photo.label !== label);
    const names = moved.map(({ sha256 }) => sha256);
    if (names.length === 0) return;
    const move = (shas, to) => this.#try(() => this.project.changePhotos('PATCH', shas, { label: to }));
    if (!(await move(names, label))) return;
    const text = () => t('js.teach.moved', { count: names.length, name: nameOf(this.project, label) });
    this.undo.offer(text, async () => {
      for (const from of new Set(moved.map((photo) => photo.label))) {
        await move(moved.filter((photo) => photo.label === from).map(({ sha256 }) => sha256), from);
      }
    });
  }

  async rename(card, names) {
    const { label, label_zh: chinese } = card.each;
    if (names.label === label && names.label_zh === chinese) return;
    if (!(await this.#rename(label, names, card))) return;
    const text = () => t('js.teach.renamed', { name: names.label });
    this.undo.offer(text, () => this.#rename(names.label, { label, label_zh: chinese }, card));
  }

  async #rename(label, names, card) {
    try {
      await this.#giveNames(card, names, label);
      return true;
    } catch (error) {
      card.complain(error);
      return false;
    }
  }

  async #giveNames(card, names, label = card.label) {
    if (this.project.hidden.classes.has(names.label)) await this.undo.flush();
    await this.uploads.rename(label, names.label, this.project.renameClass(label, names));
    this.#cards.delete(label);
    this.#cards.set(names.label, card);
    card.each = { ...card.each, ...names };
  }

  removeClass({ label, element }) {
    const { hidden } = this.project;
    const text = () => t('js.teach.class_deleted', { name: label });
    const next = element.nextElementSibling ?? byId('new-class');
    hidden.classes.add(label);
    this.draw();
    next.focus();
    this.undo.defer(text, () => {
      hidden.classes.delete(label);
      this.draw();
    }, (isLast) => this.#commit(isLast, () => call('DELETE', this.project.address('classes', label), { isLast }), () => {
      hidden.classes.delete(label);
    }));
  }

  #removePhotos(photos) {
    const { hidden } = this.project;
    const names = photos.map(({ sha256 }) => sha256);
    for (const name of names) hidden.photos.add(name);
    const unhide = () => {
      for (const name of names) hidden.photos.delete(name);
    };
    this.#redraw();
    this.undo.defer(() => t('js.teach.deleted', { count: names.length }), () => {
      unhide();
      this.#redraw();
    }, (isLast) => {
      const left = names.filter((each) => hidden.photos.has(each)); // some may have been added again
      return this.#commit(isLast, () => this.project.changePhotos('DELETE', left, { isLast }), unhide);
    });
  }

  // Delete what is hidden, which is shown again only if that fails.
  async #commit(isLast, remove, unhide) {
    try {
      await remove();
      if (isLast) return;
      await this.project.load();
      unhide();
    } catch (error) {
      unhide();
      this.#redraw();
      if (!isLast) this.project.onTrouble(error);
    }
  }

  #redraw() {
    this.draw();
    for (const card of this.#cards.values()) card.drawReport();
  }

  async #makeNext() {
    const taken = new Set(this.project.data.classes.map(({ label }) => label));
    let number = 1;
    while (taken.has(t('js.teach.class', { number }))) number += 1;
    const label = t('js.teach.class', { number });
    if (!(await this.ensure(label))) return;
    await this.project.load();
    this.#cards.get(label)?.editName();
    announce(t('js.teach.class_made', { name: label }));
  }

  async #try(work) {
    try {
      await work();
      return true;
    } catch (error) {
      this.project.onTrouble(error);
      return false;
    }
  }

  // More than a page that is left can send is deleted now, and the browser asks whether to leave.
  #finish(event) {
    if (this.project.hidden.photos.size <= MAX_LAST_PHOTOS) return;
    this.undo.flush();
    event.preventDefault();
  }
}
