// The heat map over one card's photo, for one answer at a time.

import { announce, byId, show, write } from '../page/dom.js';
import { names, t } from '../page/words.js';
import { drawOverlay, hasOutside, strongestPlace } from './overlay.js';

const open = new Set();

// Close all heat maps with Escape.
export function listenForEscape() {
  addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && !event.defaultPrevented) for (const look of [...open]) look.close();
  });
}

export class Look {
  #parts;
  #onOpen;
  #current = null;
  #answer = null;
  #eyes = [];

  // `onOpen()` is called before a heat map is shown.
  constructor(parts, { onOpen }) {
    this.#parts = parts;
    this.#onOpen = onOpen;
    parts.opacity.addEventListener('input', () => this.#draw());
    parts.photo.addEventListener('click', () => this.#toggleFirst());
  }

  // Take the predictions that are shown, with their eye buttons; `crop` is the part of the photo that the model saw,
  // and `frame` the photo's size. Without a picture to draw on, no heat map is offered.
  use({ predictions, eyes, frame, crop, hasPhoto }) {
    if (!predictions.includes(this.#current)) this.close();
    this.#eyes = eyes;
    this.#answer = { predictions, frame, crop };
    const canShow = hasPhoto && eyes.some((_, index) => predictions[index].heatmap);
    eyes.forEach((eye, index) => show(eye, hasPhoto && Boolean(predictions[index].heatmap)));
    this.#parts.photo.classList.toggle('can-look', canShow);
    show(this.#parts.hint, canShow);
    if (this.#current) this.#refresh(); // it stays while more answers are shown
  }

  toggle(prediction) {
    if (this.#current === prediction) this.close();
    else this.#open(prediction);
  }

  close() {
    if (!this.#current) return;
    this.#current = null;
    open.delete(this);
    this.#refresh();
  }

  // Forget the answers, since the photo is asked about again or removed.
  clear() {
    this.close();
    this.#answer = null;
    show(this.#parts.hint, false);
    this.#parts.photo.classList.remove('can-look');
  }

  #toggleFirst() {
    if (!this.#parts.photo.classList.contains('can-look')) return;
    this.toggle(this.#current ?? this.#answer.predictions[0]);
  }

  #open(prediction) {
    this.#onOpen();
    this.#current = prediction;
    open.add(this);
    byId('cards').classList.add('knows-maps'); // the hint has done its work
    this.#refresh();
    announce(this.#sentence());
  }

  #refresh() {
    const { overlay, look } = this.#parts;
    const { predictions } = this.#answer;
    this.#eyes.forEach((eye, index) => eye.setAttribute('aria-pressed', predictions[index] === this.#current));
    show(overlay, this.#current !== null);
    show(look, this.#current !== null);
    this.#draw();
  }

  #draw() {
    if (!this.#current) return;
    const { overlay, opacity, outside } = this.#parts;
    const { frame, crop } = this.#answer;
    drawOverlay(overlay, frame, this.#current.heatmap, crop, opacity.valueAsNumber / 100);
    write(overlay, () => this.#sentence(), 'aria-label');
    show(outside, hasOutside(crop));
  }

  #sentence() {
    const looking = this.#current;
    if (!looking) return '';
    return t('js.heatmap', { name: names(looking)[0], place: t(`js.place.${strongestPlace(looking.heatmap)}`) });
  }
}
