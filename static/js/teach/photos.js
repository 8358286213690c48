// Photos in a list of which many can be selected: by clicks, with Shift from one to another, and by the keyboard.

import { build, show, write } from '../page/dom.js';
import { percent, t } from '../page/words.js';
import { showThumbnail } from './thumbnails.js';

// A photo to which a model that has not seen it gives its class less than this is marked.
const DOUBTED_BELOW = 0.5;

export class Photos {
  #items = new Map();
  #order = [];
  #anchor = null;

  constructor(element, { project, selection, onDelete }) {
    Object.assign(this, { element, project, selection, onDelete });
    element.addEventListener('click', (event) => this.#click(event));
    element.addEventListener('keydown', (event) => this.#press(event));
    selection.addEventListener('change', () => this.#drawSelection());
  }

  // Show these photos, and keep the elements of those that are shown already.
  fill(photos) {
    const shown = photos.filter(({ sha256 }) => !this.project.hidden.photos.has(sha256));
    const hadFocus = this.element.contains(document.activeElement);
    const at = this.#order.findIndex(({ sha256 }) => this.#items.get(sha256).element === document.activeElement);
    this.#order = shown;
    const kept = new Set(shown.map(({ sha256 }) => sha256));
    for (const sha256 of this.#items.keys()) if (!kept.has(sha256)) this.#items.delete(sha256);
    for (const photo of shown) this.#draw(photo);
    const elements = shown.map(({ sha256 }) => this.#items.get(sha256).element);
    const isSame = elements.length === this.element.childElementCount
      && elements.every((element, place) => element === this.element.children[place]);
    if (!isSame) this.element.replaceChildren(...elements); // which would lose the focus
    show(this.element, elements.length > 0);
    this.#drawSelection();
    const next = elements[Math.min(Math.max(at, 0), elements.length - 1)];
    if (hadFocus && !this.element.contains(document.activeElement)) next?.focus();
    this.#makeReachable(document.activeElement);
  }

  #draw(photo) {
    if (!this.#items.has(photo.sha256)) this.#items.set(photo.sha256, this.#make(photo));
    const { element, parts } = this.#items.get(photo.sha256);
    const { probability, near, caption = () => '' } = photo;
    const isDoubted = typeof probability === 'number' && probability < DOUBTED_BELOW;
    element.classList.toggle('doubted', isDoubted);
    const facts = () => [
      photo.file ?? t('js.teach.photo'),
      caption() || (typeof probability === 'number' ? t('js.teach.share', { percent: percent(probability, 0) }) : ''),
      near ? t('js.teach.near') : '',
    ].filter(Boolean).join(', ');
    write(element, facts, 'aria-label');
    write(element, facts, 'title');
    write(parts.caption, caption);
    parts.mark.textContent = (isDoubted && '?') || (near && '≈') || '';
  }

  #make({ sha256 }) {
    const item = build('teach-photo');
    item.element.dataset.sha256 = sha256;
    showThumbnail(item.parts.image, this.project.address('photos', sha256, 'thumbnail'));
    return item;
  }

  #drawSelection() {
    for (const photo of this.#order) {
      this.#items.get(photo.sha256).element.setAttribute('aria-selected', String(this.selection.has(photo)));
    }
  }

  // Only one photo of a list is reached by Tab, the others by the arrows.
  #makeReachable(element) {
    const items = [...this.element.children];
    const reachable = items.includes(element) ? element : items[0];
    for (const each of items) each.tabIndex = each === reachable ? 0 : -1;
  }

  #click(event) {
    const element = event.target.closest('[data-sha256]');
    if (!element) return;
    const at = [...this.element.children].indexOf(element);
    if (event.shiftKey && this.#anchor !== null) this.#select(this.#anchor, at);
    else {
      this.selection.set([this.#order[at]], !this.selection.has(this.#order[at]));
      this.#anchor = at;
    }
    this.#focus(at);
  }

  #select(from, to) {
    this.selection.set(this.#order.slice(Math.min(from, to), Math.max(from, to) + 1), true);
  }

  #press(event) {
    const at = [...this.element.children].indexOf(event.target);
    if (at === -1 || event.altKey) return;
    if (!this.#pressed(event, at)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  // Return whether the key means something here.
  #pressed({ key, shiftKey, ctrlKey, metaKey }, at) {
    const photo = this.#order[at];
    if ((ctrlKey || metaKey) && key.toLowerCase() === 'a') this.selection.set(this.#order, true);
    else if (ctrlKey || metaKey) return false;
    else if (key === ' ' || key === 'Enter') this.selection.set([photo], !this.selection.has(photo));
    else if (key === 'Delete' || key === 'Backspace') this.#delete(photo);
    else if (key === 'Escape' && this.selection.photos.length > 0) this.selection.clear();
    else if (key in STEPS) this.#step(at + STEPS[key](this.#columns()), at, shiftKey);
    else if (key === 'Home' || key === 'End') this.#step(key === 'Home' ? 0 : this.#order.length - 1, at, shiftKey);
    else return false;
    if (!key.startsWith('Arrow')) this.#anchor = at;
    return true;
  }

  #delete(photo) {
    const { photos } = this.selection;
    this.selection.clear();
    this.onDelete(photos.length > 0 ? photos : [photo]);
  }

  #step(to, from, isSelecting) {
    if (to < 0 || to >= this.#order.length) return;
    if (isSelecting) this.#select(from, to);
    this.#focus(to);
  }

  #focus(at) {
    const element = this.element.children[at];
    this.#makeReachable(element);
    element.focus();
  }

  // How many photos are in a row.
  #columns() {
    const items = [...this.element.children];
    const inFirst = items.findIndex(({ offsetTop }) => offsetTop > items[0].offsetTop);
    return inFirst === -1 ? items.length : inFirst;
  }
}

const STEPS = {
  ArrowLeft: () => -1,
  ArrowRight: () => 1,
  ArrowUp: (columns) => -columns,
  ArrowDown: (columns) => columns,
};
