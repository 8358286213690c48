// The photos that are selected, of whichever class, and the bar that moves or deletes all of them.

import { announce, byId, show, write } from '../page/dom.js';
import { t } from '../page/words.js';
import { offerClasses } from './classes.js';

export class Selection extends EventTarget {
  #photos = new Map();

  // `onMove(photos, label)` and `onDelete(photos)` get the selected photos.
  constructor(project, { onMove, onDelete }) {
    super();
    this.project = project;
    byId('selected-move').addEventListener('click', () => this.#move(onMove));
    byId('selected-delete').addEventListener('click', () => this.#use(onDelete));
    byId('selected-clear').addEventListener('click', () => this.clear());
    for (const kind of ['change', 'report']) project.addEventListener(kind, () => this.#draw());
    addEventListener('languagechange', () => this.#draw());
  }

  get photos() {
    return [...this.#photos.values()];
  }

  has({ sha256 }) {
    return this.#photos.has(sha256);
  }

  set(photos, isSelected) {
    for (const photo of photos) {
      if (isSelected) this.#photos.set(photo.sha256, photo);
      else this.#photos.delete(photo.sha256);
    }
    this.#draw();
    announce(t('js.teach.selected', { count: this.#photos.size }));
    this.dispatchEvent(new Event('change'));
  }

  clear() {
    if (this.#photos.size > 0) this.set(this.photos, false);
  }

  #move(onMove) {
    const field = byId('selected-class');
    const { value: label } = field;
    if (!label) field.focus(); // first a class must be chosen
    else this.#use((photos) => onMove(photos, label));
  }

  #use(work) {
    const { photos } = this;
    this.clear();
    byId('selected-class').value = '';
    work(photos);
  }

  #draw() {
    const count = this.#photos.size;
    show(byId('selected'), count > 0);
    if (count === 0) return;
    write(byId('selected-count'), () => t('js.teach.selected', { count }));
    offerClasses(byId('selected-class'), this.project.classes, t('js.teach.move_to'));
  }
}
