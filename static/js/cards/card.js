// One photo, from its file to its answers. A card is always in one of the states of `BUTTONS`.

import { currentKey, keyIsMissing, whenKey } from '../page/access.js';
import { modelIsReady, readinessKnown, whenBack } from '../page/connection.js';
import { build, say, show, write } from '../page/dom.js';
import { chance, hasWord, limitBytes, percent, size, t } from '../page/words.js';
import { Failure } from '../photos/failure.js';
import { prepare } from '../photos/prepare.js';
import { fetchThumbnail, predict } from '../server/upload.js';
import { Answers } from './answers.js';
import { after, countDown } from './waiting.js';

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
const SETTLED = ['done', 'failed', 'cancelled'];
const MAY_PASS = [
  'internal-error', 'overloaded', 'model-unavailable', 'deadline-exceeded', 'gone', 'bad-request', 'rate-limited',
  'request-timeout',
];
const SLOW_AFTER_MS = 6000;
const MAX_ATTEMPTS = 6;
const MAX_PATIENCE_SECONDS = 600;

export class Card {
  #abort = new AbortController();
  #answers;
  #prepared = null;
  #preview = null;
  #square = null;
  #attempts = 0;
  #slowTimer = 0;

  // The card uses the queue, the lane and `mayBeSentWhole` of `visit`, and calls its `changed`, `remove` and `announceOf`.
  constructor(file, visit) {
    Object.assign(this, build('card'), { file, visit, previewUrl: null, result: null, slug: '', reason: null });
    const { parts } = this;
    this.element.dataset.state = 'waiting';
    parts.file.textContent = file.name;
    parts.file.title = file.name; // since a long one is cut
    this.#answers = new Answers(parts, file.name, (square) => this.#askAboutPart(square));
    parts.cancel.addEventListener('click', () => this.cancel());
    parts.remove.addEventListener('click', () => visit.remove(this));
    parts.retry.addEventListener('click', () => this.start());
    parts.send.addEventListener('click', () => this.sendWhole());
    const { cancel, remove, retry, send, otherPart, usePart, opacity, place, details } = parts;
    for (const each of [cancel, remove, retry, send, otherPart, usePart, opacity, place, details.firstElementChild]) {
      nameAfter(each, file.name);
    }
    write(parts.progress, () => t('js.progress_of', { file: file.name }), 'aria-label');
  }

  get state() {
    return this.element.dataset.state;
  }

  get isSettled() {
    return SETTLED.includes(this.state);
  }

  // The card's present heading.
  get title() {
    return this.parts.title.textContent;
  }

  start() {
    this.#attempts = 0;
    this.#enqueue();
  }

  cancel() {
    this.#abort.abort();
    this.#set('cancelled', () => t('js.cancelled'));
    this.visit.announceOf(this, `${this.file.name}: ${t('js.cancelled')}`);
  }

  // Send the file unchanged, to which the visitor has agreed.
  sendWhole() {
    this.hasConsent = true;
    this.start();
  }

  // Stop what runs and free what the card holds.
  dispose() {
    this.#abort.abort();
    clearTimeout(this.#slowTimer);
    this.#answers.hide();
    if (this.previewUrl) URL.revokeObjectURL(this.previewUrl);
  }

  #enqueue() {
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    this.#set('waiting', () => t('js.waiting'));
    this.visit.queue.add(() => this.#run(signal), signal);
  }

  async #run(signal) {
    try {
      if (!this.#prepared) await this.#prepare(signal);
      if (signal.aborted) return;
      const mayBeSent = this.#prepared.way !== 'original' || this.hasConsent || this.visit.mayBeSentWhole;
      if (!mayBeSent) this.#ask();
      else this.#finish(await this.#send(signal), signal);
    } catch (error) {
      if (!signal.aborted) this.#fail(error, signal);
    }
  }

  async #prepare(signal) {
    this.#set('preparing', () => t('js.preparing'));
    const prepared = await prepare(this.file, limitBytes);
    if (signal.aborted) return; // a preview made now would never be freed
    this.#prepared = prepared;
    show(this.parts.placeholder, !prepared.preview);
    if (prepared.preview) this.#showPreview(prepared.preview);
  }

  #showPreview(picture) {
    this.#preview = picture;
    this.previewUrl = URL.createObjectURL(picture);
    this.parts.image.src = this.previewUrl;
    write(this.parts.image, () => t('js.photo_of', { file: this.file.name }), 'alt');
    show(this.parts.image);
    show(this.parts.placeholder, false);
    this.visit.changed(this);
  }

  #ask() {
    const { kind, bytes } = this.#prepared.original;
    const question = () => t('js.ask', { kind, size: size(bytes) });
    this.#set('asking', () => t('js.question'), question);
    this.visit.announceOf(this, `${this.file.name}: ${question()}`);
  }

  #askAboutPart(square) {
    this.#square = square;
    this.start();
  }

  async #send(signal) {
    if (keyIsMissing()) throw new Failure('unauthorized');
    const blob = this.#square ? await this.#cutOut() : this.#prepared.blob;
    signal.throwIfAborted(); // while a part was cut out
    if (!this.visit.lane.isFree) this.#set('waiting', () => t('js.waiting'));
    const leave = await this.visit.lane.enter(signal);
    try {
      this.#attempts += 1;
      this.#progress(0);
      this.#slowTimer = setTimeout(() => say(this.parts.advice, () => t('js.slow')), SLOW_AFTER_MS);
      const onProgress = (fraction) => {
        if (fraction === 1) leave();
        this.#progress(fraction);
      };
      return { blob, ...(await predict(blob, { key: currentKey(), signal, onProgress })) };
    } finally {
      leave();
    }
  }

  async #cutOut() {
    const { cutOut } = await import('../later/cut.js');
    return cutOut(this.#preview, this.#square);
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

  #finish(result, signal) {
    const { predictions, certainty } = result.answer;
    readinessKnown();
    this.result = result;
    this.#answers.fill({ ...result, prepared: this.#prepared, square: this.#square, hasPhoto: this.#preview !== null });
    this.#set('done', () => this.#answers.verdict());
    const said = { file: this.file.name, verdict: this.title, percent: percent(chance(predictions[0])) };
    this.visit.announceOf(this, t(certainty === 'unlike' ? 'js.announce.unlike' : 'js.announce', said));
    if (!this.#preview) this.visit.queue.add(() => this.#fetchPreview(signal), signal);
  }

  // Have the server draw a photo that the browser cannot show.
  async #fetchPreview(signal) {
    try {
      const picture = await fetchThumbnail(this.#prepared.blob, { key: currentKey(), signal });
      if (signal.aborted) return;
      this.#showPreview(picture);
      this.#answers.showOnPhoto();
    } catch (error) {
      console.info(`There is no thumbnail of ${this.file.name}.`, error);
    }
  }

  #fail(error, signal) {
    if (!(error instanceof Failure)) console.error(error);
    const slug = error instanceof Failure ? error.slug : 'internal-error';
    const seconds = error.retryAfterSeconds;
    if (slug === 'gone' && this.#attempts < MAX_ATTEMPTS) this.#pause('js.paused', whenBack(), signal);
    else if (slug === 'model-unavailable') this.#pause('js.loading', after(seconds ?? 5), signal);
    else if (slug === 'unauthorized' || slug === 'forbidden') {
      this.#pause('js.needs_key', whenKey(slug, error.key), signal);
    } else if (slug === 'rate-limited' && (seconds ?? 60) <= MAX_PATIENCE_SECONDS) {
      this.#pauseFor(seconds ?? 60, signal);
    } else if (slug === 'overloaded' && this.#attempts < MAX_ATTEMPTS) {
      this.#pause('js.overloaded', after((seconds ?? 1) * this.#attempts), signal);
    } else this.#giveUp(slug === 'gone' ? 'internal-error' : slug);
  }

  async #pause(key, until, signal) {
    this.#set('paused', () => t(key));
    await until;
    if (!signal.aborted) this.#enqueue();
  }

  async #pauseFor(seconds, signal) {
    this.#set('paused', () => t('js.limited', { seconds }));
    await countDown(seconds, signal, (left) => write(this.parts.title, () => t('js.limited', { seconds: left })));
    if (!signal.aborted) this.#enqueue();
  }

  #giveUp(slug) {
    this.slug = slug;
    const known = hasWord(`problem.${slug}`) ? slug : 'internal-error';
    const kind = this.#prepared?.original.kind; // known only if the file begins like a photo
    const isOfKind = slug === 'unsupported-image' && kind;
    const texts = isOfKind ? ['js.unsupported', 'js.unsupported.advice'] : [`problem.${known}`, `advice.${known}`];
    const [title, advice] = texts.map((key) => () => t(key, { kind }));
    this.reason = title;
    this.#set('failed', title, advice);
    show(this.parts.retry, MAY_PASS.includes(known));
    this.visit.announceOf(this, `${this.file.name}: ${title()} ${advice()}`);
  }

  // `title()` and `advice()` return texts in the page's present language.
  #set(state, title, advice) {
    const { parts, element } = this;
    const hadFocus = element.contains(document.activeElement);
    if (state !== 'sending' && state !== 'thinking') clearTimeout(this.#slowTimer);
    element.dataset.state = state;
    write(parts.title, title);
    say(parts.advice, advice);
    for (const name of ['cancel', 'retry', 'send', 'remove']) show(parts[name], BUTTONS[state].includes(name));
    show(parts.progress, state === 'sending' || state === 'thinking');
    if (state === 'done') this.#answers.show();
    else this.#answers.hide();
    const active = document.activeElement;
    if (hadFocus && (!element.contains(active) || active.closest('[hidden]'))) element.focus();
    this.visit.changed(this);
  }
}

// Name a control for screen readers: its word, which may be its label's, and its photo.
function nameAfter(control, file) {
  const word = () => control.textContent.trim() || control.title || control.parentElement.textContent.trim();
  write(control, () => t('js.button_of', { button: word(), file }), 'aria-label');
}
