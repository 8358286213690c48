// Photos that were given to a class together: they can be taken back together.

import { t } from '../page/words.js';
import { nameOf } from './project.js';

export class Batch {
  #added = [];
  #moved = new Map(); // from the name of a class to the photos that came from it
  #waiting = 0;
  #isOpen = true;

  constructor(uploads, label) {
    Object.assign(this, { uploads, label });
  }

  get count() {
    return this.#added.length + [...this.#moved.values()].flat().length;
  }

  add(file) {
    this.#waiting += 1;
    this.uploads.enqueue(file, this);
  }

  // No more files will come.
  close() {
    this.#isOpen = false;
    this.#offer();
  }

  // The server has taken a photo.
  note({ sha256, state, from }) {
    if (state === 'moved' && from) this.#moved.set(from, [...(this.#moved.get(from) ?? []), sha256]);
    else if (state === 'added') this.#added.push(sha256);
  }

  // One of the files has arrived, or was refused.
  settle() {
    this.#waiting -= 1;
    this.#offer();
  }

  #offer() {
    if (this.#isOpen || this.#waiting > 0) return;
    this.uploads.forget(this);
    if (this.count === 0) return;
    const { project, undo } = this.uploads;
    const { count, label } = this;
    undo.offer(() => t('js.teach.added', { count, name: nameOf(project, label) }), () => this.#revert(project));
  }

  async #revert(project) {
    try {
      if (this.#added.length > 0) await project.changePhotos('DELETE', this.#added);
      for (const [label, photos] of this.#moved) await project.changePhotos('PATCH', photos, { label });
    } catch (error) {
      project.onTrouble(error);
    }
  }
}
