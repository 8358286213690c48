// Another part of the photo: the model sees a square of it, which is moved along the longer side with a slider or on the
// photo itself.

import { show, write } from '../page/dom.js';
import { t } from '../page/words.js';
import { darken } from './overlay.js';

const MIN_RATIO = 1.15; // below it there is hardly anything to move along
const MIDDLE = 50;

export class Part {
  #parts;
  #frame = null;
  #seen = 0;

  // `onOpen()` is called before the square is shown, and `onChoose(square)` when it is to be classified: its edges as
  // fractions of the photo.
  constructor(parts, { onOpen, onChoose }) {
    this.#parts = parts;
    parts.otherPart.addEventListener('click', () => {
      if (this.isOpen) this.close();
      else this.#open(onOpen);
    });
    parts.place.addEventListener('input', () => this.#draw());
    parts.usePart.addEventListener('click', () => {
      const square = this.#square();
      this.close();
      onChoose(square);
    });
    parts.photo.addEventListener('click', (event) => {
      if (this.isOpen) event.stopImmediatePropagation(); // it would show a heat map
    });
    for (const kind of ['pointerdown', 'pointermove']) parts.photo.addEventListener(kind, (event) => this.#point(event));
  }

  get isOpen() {
    return this.#parts.otherPart.getAttribute('aria-expanded') === 'true';
  }

  // Offer it for a photo of the size `frame`, of whose shorter side the model sees the share `seen`.
  use(frame, seen) {
    this.#frame = frame;
    this.#seen = seen;
    const { width, height } = frame;
    show(this.#parts.otherPart, Math.max(width, height) / Math.min(width, height) >= MIN_RATIO);
  }

  close() {
    if (!this.isOpen) return;
    this.#set(false);
    show(this.#parts.overlay, false);
  }

  clear() {
    this.close();
    show(this.#parts.otherPart, false);
    this.#parts.place.value = MIDDLE;
  }

  #open(onOpen) {
    onOpen();
    this.#set(true);
    show(this.#parts.overlay);
    this.#draw();
  }

  #set(isOpen) {
    this.#parts.otherPart.setAttribute('aria-expanded', String(isOpen));
    this.#parts.photo.classList.toggle('can-move', isOpen);
    show(this.#parts.part, isOpen);
  }

  #square() {
    const { width, height } = this.#frame;
    const share = this.#parts.place.valueAsNumber / 100;
    const side = Math.min(width, height);
    const left = (share * (width - side)) / width;
    const top = (share * (height - side)) / height;
    return { left, top, right: left + side / width, bottom: top + side / height };
  }

  #draw() {
    const square = this.#square();
    darken(this.#parts.overlay, this.#frame, within(square, { left: (1 - this.#seen) / 2, top: (1 - this.#seen) / 2,
      right: (1 + this.#seen) / 2, bottom: (1 + this.#seen) / 2 }));
    write(this.#parts.overlay, () => t('js.part'), 'aria-label');
  }

  // Put the middle of the square where the pointer is.
  #point(event) {
    if (!this.isOpen || (event.type === 'pointermove' && event.buttons === 0)) return;
    const { width, height } = this.#frame;
    const box = this.#parts.photo.getBoundingClientRect();
    const scale = Math.min(box.width / width, box.height / height);
    const side = Math.min(width, height);
    const along = width > height ? (event.clientX - box.left - box.width / 2) / scale + width / 2
      : (event.clientY - box.top - box.height / 2) / scale + height / 2;
    const share = (along - side / 2) / (Math.max(width, height) - side);
    this.#parts.place.value = 100 * Math.min(Math.max(share, 0), 1);
    this.#draw();
  }
}

// Find a part of a part: both have edges as fractions.
export function within(outer, inner) {
  const wide = outer.right - outer.left;
  const high = outer.bottom - outer.top;
  return {
    left: outer.left + wide * inner.left,
    top: outer.top + high * inner.top,
    right: outer.left + wide * inner.right,
    bottom: outer.top + high * inner.bottom,
  };
}
