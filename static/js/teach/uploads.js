// Photos on their way into the project, two at a time: how far they are, and which were refused. They can be stopped.

import { Queue } from '../cards/queue.js';
import { announce, byId, say, show, write } from '../page/dom.js';
import { limitBytes, t } from '../page/words.js';
import { pathOf } from '../later/folders.js';
import { prepare } from '../photos/prepare.js';
import { slugOf } from '../server/upload.js';
import { explain, explainSlug, sendWhole } from './api.js';
import { requireUnpacked } from './archive.js';
import { Batch } from './batch.js';

const AT_ONCE = 2;
const NEVER = new AbortController().signal;

export class Uploads {
  #queue = new Queue(AT_ONCE);
  #abort = new AbortController();
  #counts = { done: 0, count: 0, present: 0 };
  #asking = [];
  #batches = new Set();
  #mayBeSentWhole = false;
  #renames = Promise.resolve();

  constructor(project, undo) {
    Object.assign(this, { project, undo });
    byId('stop').addEventListener('click', () => this.stop());
    byId('tray-close').addEventListener('click', () => this.#clear());
    byId('send-whole').addEventListener('click', () => this.#answer(true));
    byId('leave-out').addEventListener('click', () => this.#answer(false));
    addEventListener('beforeunload', (event) => {
      if (this.isBusy) event.preventDefault(); // the browser asks whether to leave
    });
  }

  get isBusy() {
    return this.#counts.done < this.#counts.count;
  }

  // Give files to a class.
  add(files, label) {
    const batch = this.open(label);
    for (const file of files) batch.add(file);
    batch.close();
  }

  // Begin to give files to a class one after another, which are undone together.
  open(label) {
    const batch = new Batch(this, label);
    this.#batches.add(batch);
    return batch;
  }

  // Whether photos are on their way to a class.
  hasFor(label) {
    return [...this.#batches].some((batch) => batch.label === label);
  }

  forget(batch) {
    this.#batches.delete(batch);
  }

  // A class is getting another name, which it has when `change` is done; also for the photos on their way to it.
  rename(from, to, change) {
    const done = change.then(() => {
      for (const batch of this.#batches) if (batch.label === from) batch.label = to;
    });
    this.#renames = Promise.allSettled([this.#renames, done]);
    return done;
  }

  enqueue(file, batch) {
    if (!this.isBusy) this.#begin();
    this.#counts.count += 1;
    const { signal } = this.#abort;
    this.#queue.add(() => this.#run(file, batch, signal), NEVER); // also if stopped, so that its batch learns of it
    this.#draw();
  }

  stop() {
    this.#abort.abort();
    for (const { batch } of this.#asking.splice(0)) batch.settle();
    this.#counts.done = this.#counts.count;
    this.#draw();
    announce(t('js.teach.stopped'));
  }

  #begin() {
    this.#abort = new AbortController();
    this.#counts = { done: 0, count: 0, present: 0 };
    byId('refused').replaceChildren();
  }

  async #run(file, batch, signal) {
    try {
      signal.throwIfAborted();
      await this.#sendPhoto(file, batch, signal);
    } catch (error) {
      if (signal.aborted) batch.settle();
      else this.#refuse(file, () => explain(error), batch);
      if (error.slug === 'unknown-project') this.project.onTrouble(error);
    }
  }

  async #sendPhoto(file, batch, signal) {
    requireUnpacked(file);
    const { blob, way } = await prepare(file, limitBytes);
    if (signal.aborted) batch.settle();
    else if (way === 'original' && !this.#mayBeSentWhole) this.#ask(file, batch);
    else {
      const form = new FormData();
      form.append('file', blob, file.name);
      const answer = await this.#send(form, batch, signal);
      for (const photo of answer.photos) this.#take(photo, batch, file);
      this.project.refresh();
      if (signal.aborted) batch.settle(); // it was under way, and is counted no more
      else this.#settle(batch);
    }
  }

  // The class may be renamed while a photo is on its way; the server knows of that before this page does.
  async #send(form, batch, signal) {
    const { label } = batch;
    try {
      return await sendWhole(this.project.address('classes', label, 'photos'), form, signal);
    } catch (error) {
      if (error.slug !== 'not-found') throw error;
      await this.#renames;
      if (batch.label === label) throw error;
      return this.#send(form, batch, signal);
    }
  }

  #take(photo, batch, file) {
    const { problem, state, sha256 } = photo;
    if (problem) this.#list(file, () => explainSlug(slugOf(problem)));
    else if (state === 'present') this.#counts.present += 1;
    else batch.note(photo);
    this.project.hidden.photos.delete(sha256); // it may be about to be deleted, and is wanted again
  }

  #refuse(file, reason, batch) {
    this.#list(file, reason);
    this.#settle(batch);
  }

  #list(file, reason) {
    const item = document.createElement('li');
    write(item, () => t('js.teach.refused_one', { file: pathOf(file), reason: reason() }));
    byId('refused').append(item);
    announce(item.textContent);
  }

  #settle(batch) {
    if (this.isBusy) this.#counts.done += 1;
    batch.settle();
    this.#draw();
    if (!this.isBusy) announce(byId('tray-text').textContent);
  }

  // Photos that this browser cannot make smaller are asked about together.
  #ask(file, batch) {
    this.#asking.push({ file, batch });
    this.#draw();
    announce(byId('consent-text').textContent);
  }

  #answer(isYes) {
    this.#mayBeSentWhole = isYes;
    for (const { file, batch } of this.#asking.splice(0)) {
      if (isYes) this.#queue.add(() => this.#run(file, batch, this.#abort.signal), NEVER);
      else this.#refuse(file, () => t('js.teach.left_out'), batch);
    }
    this.#draw();
    byId('tray').focus();
  }

  #clear() {
    byId('refused').replaceChildren();
    this.#draw();
    byId('new-class').focus();
  }

  #draw() {
    const refused = byId('refused').childElementCount;
    const { done, count, present } = this.#counts;
    const numbers = { done, count };
    show(byId('tray'), this.isBusy || refused > 0);
    write(byId('tray-text'), () => [
      t('js.count', numbers),
      present > 0 ? t('js.teach.present', { count: present }) : '',
      refused > 0 ? t('js.teach.refused', { count: refused }) : '',
    ].join(' '));
    Object.assign(byId('tray-progress'), { max: count, value: done });
    show(byId('tray-progress'), this.isBusy);
    show(byId('stop'), this.isBusy);
    show(byId('tray-close'), !this.isBusy);
    const asking = this.#asking.length;
    show(byId('consent'), asking > 0);
    say(byId('consent-text'), () => (asking > 0 ? t('js.ask_all', { count: asking }) : ''));
  }
}
