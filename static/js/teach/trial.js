// The test beside the classes: what the project says of a photo, or of the camera's picture, and how to correct it.

import { after } from '../cards/waiting.js';
import { announce, build, byId, say, show, write } from '../page/dom.js';
import { listenToChooser } from '../page/inputs.js';
import { chance, limitBytes, names, percent, t } from '../page/words.js';
import { prepare } from '../photos/prepare.js';
import { explain, send } from './api.js';
import { agree } from './dialog.js';
import { offerClasses } from './classes.js';
import { NONE_NAME } from './facts.js';
import { className } from './project.js';

const BETWEEN_FRAMES_SECONDS = 0.4;
// With more classes than this, the right one is chosen from a list.
const MAX_BUTTONS = 6;

export class Trial {
  #file = null; // the photo of which the answer is shown
  #mayBeSent = null; // the photo that the visitor has agreed to send as it is
  #answer = null;
  #abort = new AbortController();
  #shownUrl = '';

  constructor(project, { camera, onRight }) {
    Object.assign(this, { project, camera, onRight });
    byId('file').accept = 'image/*';
    listenToChooser(byId('file'), ([file]) => this.use(file));
    byId('right').addEventListener('click', () => this.#correct(byId('right-class').value));
    camera.addEventListener('change', () => this.#watch());
    project.addEventListener('report', () => this.#askAgain());
    project.addEventListener('change', () => this.#draw());
    addEventListener('languagechange', () => this.#draw());
  }

  // Ask about a photo.
  async use(file) {
    this.camera.close();
    this.#file = file;
    this.#answer = null;
    this.#showPhoto(file);
    await this.#ask(file);
    if (this.#answer) announce(this.#verdict());
  }

  #showPhoto(file) {
    URL.revokeObjectURL(this.#shownUrl);
    this.#shownUrl = file ? URL.createObjectURL(file) : '';
    const image = byId('trial-photo');
    if (file) {
      image.src = this.#shownUrl;
      image.alt = file.name;
    } else image.removeAttribute('src');
    show(image, Boolean(file));
  }

  // Ask about what the camera shows as long as it is on.
  async #watch() {
    if (!this.camera.isOn) return;
    this.#showPhoto(null);
    this.#answer = null;
    while (this.camera.isOn) {
      const frame = document.hidden || !this.project.canAnswer ? null : await this.camera.picture();
      if (frame && this.camera.isOn) await this.#ask(frame, true);
      else this.#draw();
      await after(BETWEEN_FRAMES_SECONDS);
    }
    this.#draw();
  }

  // The project has learned something: does it change the answer?
  #askAgain() {
    if (this.#file && !this.camera.isOn) this.#ask(this.#file);
  }

  async #ask(file, isFrame = false) {
    if (!this.project.canAnswer) {
      this.#draw();
      return;
    }
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    try {
      const { blob, way } = await prepare(file, limitBytes);
      if (way === 'original' && !(await this.#agreed(file))) return;
      const answer = await send(`${this.project.address('predict')}?top=3`, blob, signal);
      if (isFrame && !this.camera.isOn) return;
      [this.#file, this.#answer] = [file, answer];
      this.#draw();
    } catch (error) {
      if (!signal.aborted) this.#draw(() => explain(error));
    }
  }

  // The same photo is asked about again after each change of the project, but the visitor only once.
  async #agreed(file) {
    if (this.#mayBeSent !== file) {
      const isYes = await agree(() => t('js.ask_all', { count: 1 }), 'js.teach.send');
      [this.#file, this.#mayBeSent] = isYes ? [file, file] : [null, null];
    }
    return this.#mayBeSent === file;
  }

  #draw(trouble) {
    const answer = this.project.canAnswer ? this.#answer : null;
    say(byId('trial-hint'), trouble ?? (this.project.canAnswer ? () => '' : () => t('js.teach.need_two')));
    byId('trial').classList.toggle('ready', this.project.canAnswer);
    say(byId('verdict'), answer ? () => this.#verdict() : () => '');
    say(byId('unlike'), answer && this.#isUnlike() ? () => t('js.teach.unlike') : () => '');
    byId('guesses').replaceChildren(...(answer ? this.#rows(answer) : []));
    show(byId('correct'), Boolean(answer));
    if (answer) this.#drawClasses();
  }

  #verdict() {
    const { predictions, certainty } = this.#answer;
    const name = nameIn(predictions[0]);
    if (certainty === 'unlike' || predictions[0].label === NONE_NAME) return t('js.teach.none');
    return t(certainty === 'unsure' ? 'js.teach.perhaps' : 'js.teach.is', { name });
  }

  // Whether the answer is none of the classes although one of them comes first.
  #isUnlike() {
    const { predictions, certainty } = this.#answer;
    return certainty === 'unlike' && predictions[0].label !== NONE_NAME;
  }

  #rows({ predictions }) {
    return predictions.map((prediction) => {
      const { element, parts } = build('teach-guess');
      const shown = percent(chance(prediction), 0);
      write(parts.name, () => nameIn(prediction));
      parts.bar.value = chance(prediction);
      write(parts.bar, () => nameIn(prediction), 'aria-label');
      parts.bar.setAttribute('aria-valuetext', shown);
      parts.percent.textContent = shown;
      return element;
    });
  }

  // The buttons stay as they are while the answers of the camera come and go.
  #drawClasses() {
    const { classes } = this.project;
    const key = JSON.stringify([document.documentElement.lang, classes.map(({ label, label_zh: zh }) => [label, zh])]);
    if (byId('right-buttons').dataset.of === key) return;
    byId('right-buttons').dataset.of = key;
    const isFew = classes.length <= MAX_BUTTONS;
    show(byId('right-buttons'), isFew);
    show(byId('right-list'), !isFew);
    offerClasses(byId('right-class'), classes);
    byId('right-buttons').replaceChildren(...(isFew ? classes.map((each) => this.#button(each)) : []));
  }

  #button(each) {
    const button = Object.assign(document.createElement('button'), { type: 'button', className: 'quiet' });
    write(button, () => className(each));
    button.addEventListener('click', () => this.#correct(each.label));
    return button;
  }

  #correct(label) {
    if (this.#file) this.onRight(this.#file, label);
  }
}

// The name of an answer's class as the page writes it.
function nameIn(prediction) {
  return prediction.label === NONE_NAME ? t('js.teach.none') : names(prediction)[0];
}
