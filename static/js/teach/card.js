// The card of a class: its names, its photos, how often it is named correctly, and the photos that the model doubts most.

import { announce, build, say, show, write } from '../page/dom.js';
import { listenToChooser } from '../page/inputs.js';
import { percent, t } from '../page/words.js';
import { suffixes } from '../photos/facts.js';
import { explain } from './api.js';
import { listenToHold } from './hold.js';
import { Photos } from './photos.js';
import { NONE } from './facts.js';
import { className, nameOf } from './project.js';

const FEW = 18;
const MORE = 200;

export class ClassCard {
  #photos;
  #doubted;
  #limit = FEW;
  #shown = null; // the state of which the photos are shown
  #fetched = { photos: [], total: 0 };
  #isSeen = false;

  // `page` has the project, the selection, the camera and the uploads, and `rename`, `removeClass`, `removePhotos`.
  constructor(each, page) {
    Object.assign(this, build('teach-class'), { page, each });
    const { parts, element } = this;
    element.dataset.drop = each.label;
    const options = { project: page.project, selection: page.selection, onDelete: page.removePhotos };
    this.#photos = new Photos(parts.photos, options);
    this.#doubted = new Photos(parts.doubted, options);
    this.#listen();
    new IntersectionObserver(([{ isIntersecting }]) => {
      this.#isSeen = isIntersecting;
      this.#list();
    }, { rootMargin: '50%' }).observe(element);
  }

  get label() {
    return this.each.label;
  }

  // Show what the project knows of the class now.
  draw(each) {
    const { parts } = this;
    this.each = each;
    this.element.dataset.drop = each.label;
    const isNone = each.label === NONE;
    for (const part of ['naming', 'remove']) show(parts[part], !isNone);
    for (const part of ['noneTitle', 'noneHint']) show(parts[part], isNone);
    this.#putValue(parts.name, each.label);
    this.#putValue(parts.chinese, each.label_zh ?? '');
    write(parts.count, () => t('js.teach.photos', { count: each.photos }));
    this.#nameControls();
    this.#drawReport();
    this.#drawCamera();
    this.#list();
  }

  // The photos may have other probabilities now.
  drawReport() {
    this.#drawReport();
    this.#shown = null;
    this.#list();
  }

  editName() {
    this.parts.name.focus();
    this.parts.name.select();
  }

  complain(error) {
    say(this.parts.error, () => explain(error));
    announce(this.parts.error.textContent);
    this.#putValue(this.parts.name, this.label, true);
  }

  #listen() {
    const { parts, page } = this;
    listenToChooser(parts.file, (files) => page.give(files, this.label));
    parts.file.accept = [...suffixes, '.zip', 'image/*'].join();
    parts.remove.addEventListener('click', () => page.removeClass(this));
    parts.more.addEventListener('click', () => this.#showMore());
    for (const field of [parts.name, parts.chinese]) {
      field.addEventListener('change', () => this.#rename());
      field.addEventListener('keydown', (event) => {
        if (event.key === 'Escape') this.#restore(field);
        else if (event.key === 'Enter' && !event.isComposing) field.blur();
      });
    }
    parts.shoot.addEventListener('click', () => { if (!page.camera.isOn) page.camera.open(); });
    page.camera.addEventListener('change', () => this.#drawCamera());
    listenToHold(parts.shoot, () => page.camera.isOn, (signal) => this.#shoot(signal));
  }

  #putValue(field, value, isForced = false) {
    if (isForced || field !== document.activeElement) Object.assign(field, { value });
  }

  #restore(field) {
    this.#putValue(this.parts.name, this.label, true);
    this.#putValue(this.parts.chinese, this.each.label_zh ?? '', true);
    field.blur();
  }

  #rename() {
    const { name, chinese } = this.parts;
    const label = name.value.trim() || this.label;
    say(this.parts.error);
    this.page.rename(this, { label, label_zh: chinese.value.trim() });
  }

  async #shoot(signal) {
    const { camera, uploads } = this.page;
    const batch = uploads.open(this.label);
    await camera.shoot(signal, (photo, count) => {
      batch.add(photo);
      write(this.parts.shootText, () => t('js.teach.taken', { count }));
    });
    batch.close();
    this.#drawCamera();
  }

  #drawCamera() {
    const { camera } = this.page;
    write(this.parts.shootText, () => t(camera.isOn ? 'js.teach.hold' : 'js.teach.camera'));
    this.parts.shoot.classList.toggle('live', camera.isOn);
  }

  #nameControls() {
    const { parts, each } = this;
    const name = () => className(each);
    write(this.element, name, 'aria-label');
    write(parts.photos, () => t('js.teach.photos_of', { name: name() }), 'aria-label');
    write(parts.doubted, () => t('js.teach.doubted_of', { name: name() }), 'aria-label');
    write(parts.file, () => t('js.button_of', { button: t('js.teach.add_photos'), file: name() }), 'aria-label');
    write(parts.name, () => t('js.button_of', { button: t('js.teach.name'), file: name() }), 'aria-label');
    write(parts.chinese, () => t('js.button_of', { button: t('js.teach.chinese'), file: name() }), 'aria-label');
    write(parts.remove, () => t('js.button_of', { button: t('js.teach.remove_class'), file: name() }), 'aria-label');
    write(parts.meter, () => t('js.teach.right_of', { name: name() }), 'aria-label');
  }

  #drawReport() {
    const { parts, page, each } = this;
    const row = page.project.report?.classes.find(({ label }) => label === each.label);
    const accuracy = row?.accuracy?.value ?? null;
    show(parts.result, accuracy !== null);
    if (accuracy !== null) {
      parts.meter.value = accuracy;
      parts.meter.setAttribute('aria-valuetext', percent(accuracy, 0));
      write(parts.accuracy, () => t('js.teach.class_right', { percent: percent(accuracy, 0) }));
    }
    const doubted = (row?.doubted ?? []).filter(({ sha256 }) => !page.project.hidden.photos.has(sha256));
    show(parts.doubts, doubted.length > 0);
    this.#doubted.fill(doubted.map((photo) => ({ ...photo, label: each.label, caption: () => this.#reason(photo) })));
  }

  // The name that was given to a doubted photo, if it was a wrong one.
  #answer({ answer }) {
    return answer && answer !== this.label ? nameOf(this.page.project, answer) : '';
  }

  #reason(photo) {
    const name = this.#answer(photo);
    const share = percent(photo.probability, 0);
    return name ? t('js.teach.doubt', { name }) : t('js.teach.doubt_share', { percent: share });
  }

  #showMore() {
    this.#limit += MORE;
    this.#shown = null;
    this.#list();
    this.parts.photos.querySelector('[tabindex="0"]')?.focus();
  }

  // List the photos if the card is near the window and anything has changed.
  async #list() {
    const { project } = this.page;
    const state = JSON.stringify([this.label, project.revision, this.#limit, [...project.hidden.photos]]);
    if (!this.#isSeen || state === this.#shown) return;
    this.#shown = state;
    this.#fill(); // without what has been hidden
    try {
      const fetched = this.each.photos > 0 ? await project.listPhotos(this.label, this.#limit) : { photos: [], total: 0 };
      if (this.#shown !== state) return;
      this.#fetched = fetched;
      this.#fill();
    } catch (error) {
      this.#shown = null;
      if (this.element.isConnected) project.onTrouble(error);
    }
  }

  #fill() {
    const { photos, total } = this.#fetched;
    const hidden = photos.filter(({ sha256 }) => this.page.project.hidden.photos.has(sha256)).length;
    this.#photos.fill(photos);
    const left = total - photos.length;
    show(this.parts.more, left > 0);
    write(this.parts.more, () => t('js.teach.more', { count: Math.min(left, MORE) }));
    write(this.parts.count, () => t('js.teach.photos', { count: total - hidden }));
    show(this.parts.empty, total - hidden === 0);
  }
}
