// One photo from the moment it is given to its answers. A card is always in one of the states of `BUTTONS`.

import { currentKey, keyIsMissing, whenKey } from '../page/access.js';
import { modelIsReady, readinessKnown, whenBack } from '../page/connection.js';
import { announce, build, say, show, write } from '../page/dom.js';
import { limitBytes, names, percent, sentences, size, t } from '../page/words.js';
import { Failure } from '../photos/failure.js';
import { prepare } from '../photos/prepare.js';
import { predict } from '../server/upload.js';
import { fillAnswers, fillDetails, verdict } from './answers.js';
import { drawOverlay, hasOutside, strongestPlace } from './overlay.js';

const BUTTONS = {
  waiting: ['cancel'],
  preparing: ['cancel'],
  sending: ['cancel'],
  thinking: ['cancel'],
  paused: ['cancel'],
  asking: ['send', 'remove'],
  done: ['remove'],
  failed: ['remove'],
  cancelled: ['retry', 'remove'],
};
const MAY_PASS = [
  'internal-error', 'overloaded', 'model-unavailable', 'deadline-exceeded', 'gone', 'bad-request', 'rate-limited',
  'request-timeout',
];
const SLOW_AFTER_MS = 6000;
const MOST_ATTEMPTS = 6;
const MOST_PATIENCE_SECONDS = 600;

export class Card {
  #abort = new AbortController();
  #prepared = null;
  #hasConsent = false;
  #attempts = 0;
  #looking = null;
  #slowTimer = 0;

  constructor(file, { queue, onChange, onRemove }) {
    Object.assign(this, build('card'), { file, queue, onChange, previewUrl: null });
    const { parts } = this;
    parts.file.textContent = file.name;
    parts.file.title = file.name; // since a long one is cut
    parts.cancel.addEventListener('click', () => this.cancel());
    parts.remove.addEventListener('click', () => onRemove(this));
    parts.retry.addEventListener('click', () => this.start());
    parts.send.addEventListener('click', () => {
      this.#hasConsent = true;
      this.start();
    });
    parts.opacity.addEventListener('input', () => this.#draw());
  }

  get state() {
    return this.element.dataset.state;
  }

  start() {
    this.#attempts = 0;
    this.#enqueue();
  }

  cancel() {
    this.#abort.abort();
    this.#set('cancelled', () => t('js.cancelled'));
    announce(`${this.file.name}: ${t('js.cancelled')}`);
  }

  // Stop what runs and free what the card holds.
  dispose() {
    this.#abort.abort();
    clearTimeout(this.#slowTimer);
    if (this.previewUrl) URL.revokeObjectURL(this.previewUrl);
  }

  #enqueue() {
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    this.#set('waiting', () => t('js.waiting'));
    this.queue.add(() => this.#run(signal), signal);
  }

  async #run(signal) {
    try {
      if (!this.#prepared) await this.#prepare(signal);
      if (signal.aborted) return;
      if (this.#prepared.way === 'original' && !this.#hasConsent) this.#ask();
      else this.#finish(await this.#send(signal));
    } catch (error) {
      if (!signal.aborted) this.#fail(error, signal);
    }
  }

  async #prepare(signal) {
    this.#set('preparing', () => t('js.preparing'));
    const prepared = await prepare(this.file, limitBytes);
    if (signal.aborted) return; // a preview made now would never be freed
    this.#prepared = prepared;
    const { preview } = prepared;
    show(this.parts.placeholder, !preview);
    if (!preview) return;
    this.previewUrl = URL.createObjectURL(preview);
    this.parts.image.src = this.previewUrl;
    write(this.parts.image, () => t('js.photo_of', { file: this.file.name }), 'alt');
    show(this.parts.image);
    this.onChange(this);
  }

  #ask() {
    const { kind, bytes } = this.#prepared.original;
    const question = () => t('js.ask', { kind, size: size(bytes) });
    this.#set('asking', () => t('js.question'), question);
    announce(question());
  }

  #send(signal) {
    if (keyIsMissing()) throw new Failure('unauthorized');
    this.#attempts += 1;
    this.#progress(0);
    this.#slowTimer = setTimeout(() => say(this.parts.advice, () => t('js.slow')), SLOW_AFTER_MS);
    const onProgress = (fraction) => this.#progress(fraction);
    return predict(this.#prepared.blob, { key: currentKey(), signal, onProgress });
  }

  #progress(fraction) {
    if (fraction < 1) {
      const title = () => t('js.sending', { percent: percent(fraction, 0) });
      if (this.state === 'sending') write(this.parts.title, title);
      else this.#set('sending', title);
      this.parts.progress.value = fraction;
    } else {
      this.#set('thinking', () => t('js.thinking'), modelIsReady() ? undefined : () => t('js.loading'));
      this.parts.progress.removeAttribute('value');
    }
  }

  #finish(result) {
    const { parts } = this;
    const { predictions } = result.answer;
    readinessKnown();
    this.result = result;
    this.eyes = fillAnswers(parts.answers, predictions, this.previewUrl && ((prediction) => this.#look(prediction)));
    fillDetails(parts, this.file.name, this.#prepared, result);
    this.#set('done', () => verdict(predictions));
    const [name] = names(predictions[0]);
    announce(t('js.announce', { file: this.file.name, name, percent: percent(predictions[0].confidence) }));
  }

  #fail(error, signal) {
    if (!(error instanceof Failure)) console.error(error);
    const slug = error instanceof Failure ? error.slug : 'internal-error';
    const seconds = error.retryAfterSeconds;
    if (slug === 'gone' && this.#attempts < MOST_ATTEMPTS) this.#pause('js.paused', whenBack(), signal);
    else if (slug === 'model-unavailable') this.#pause('js.loading', after(seconds ?? 5), signal);
    else if (slug === 'unauthorized' || slug === 'forbidden') {
      this.#pause('js.needs_key', whenKey(slug, error.key), signal);
    } else if (slug === 'rate-limited' && (seconds ?? 60) <= MOST_PATIENCE_SECONDS) {
      this.#pause('js.limited', after(seconds ?? 60), signal, { seconds: seconds ?? 60 });
    } else if (slug === 'overloaded' && this.#attempts < MOST_ATTEMPTS) {
      this.#pause('js.overloaded', after((seconds ?? 1) * this.#attempts), signal);
    } else this.#giveUp(slug === 'gone' ? 'internal-error' : slug);
  }

  async #pause(key, until, signal, values) {
    this.#set('paused', () => t(key, values));
    await until;
    if (!signal.aborted) this.#enqueue();
  }

  #giveUp(slug) {
    this.#set('failed', () => t(`problem.${slug}`), () => t(`advice.${slug}`));
    show(this.parts.retry, MAY_PASS.includes(slug));
    announce(`${this.file.name}: ${sentences(`problem.${slug}`, `advice.${slug}`)}`);
  }

  // `title()` and `advice()` say it in the language of the moment.
  #set(state, title, advice) {
    const { parts, element } = this;
    const hadFocus = element.contains(document.activeElement);
    if (state !== 'sending' && state !== 'thinking') clearTimeout(this.#slowTimer);
    element.dataset.state = state;
    write(parts.title, title);
    say(parts.advice, advice);
    for (const name of ['cancel', 'retry', 'send', 'remove']) show(parts[name], BUTTONS[state].includes(name));
    show(parts.progress, state === 'sending' || state === 'thinking');
    const isDone = state === 'done';
    for (const name of ['answers', 'details']) show(parts[name], isDone);
    show(parts.hint, isDone && Boolean(this.eyes?.some((eye) => !eye.hidden)));
    const active = document.activeElement;
    if (hadFocus && (!element.contains(active) || active.closest('[hidden]'))) element.focus();
    this.onChange(this);
  }

  // Show or hide what the model looked at for one answer.
  #look(prediction) {
    this.#looking = this.#looking === prediction ? null : prediction;
    const { predictions } = this.result.answer;
    this.eyes.forEach((eye, index) => eye.setAttribute('aria-pressed', predictions[index] === this.#looking));
    show(this.parts.overlay, this.#looking !== null);
    show(this.parts.look, this.#looking !== null);
    this.#draw();
  }

  #draw() {
    if (!this.#looking) return;
    const { image } = this.result.answer;
    const { overlay, opacity, outside } = this.parts;
    const { heatmap } = this.#looking;
    drawOverlay(overlay, image, heatmap, image.crop, opacity.valueAsNumber / 100);
    const looking = this.#looking;
    const place = strongestPlace(heatmap);
    write(overlay, () => t('js.heatmap', { name: names(looking)[0], place: t(`js.place.${place}`) }), 'aria-label');
    show(outside, hasOutside(image.crop));
  }
}

function after(seconds) {
  return new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}
