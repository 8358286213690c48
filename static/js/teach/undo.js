// What can be undone, the latest first. A deletion is sent only after some seconds, or when the page is left.

import { announce, byId, show, write } from '../page/dom.js';
import { t } from '../page/words.js';

const DELETED_AFTER_MS = 6000;
const SHOWN_MS = 10_000;

export class Undo {
  #actions = [];
  #timer = 0;

  constructor() {
    byId('undo').addEventListener('click', () => this.undo());
    addEventListener('keydown', (event) => {
      const isUndo = (event.ctrlKey || event.metaKey) && !event.shiftKey && event.key === 'z';
      if (!isUndo || event.target.matches('input:not([type=file]), textarea, select')) return;
      event.preventDefault();
      this.undo();
    });
    addEventListener('pagehide', () => this.flush(true));
  }

  // Offer to undo what was done, which `text()` names, by `revert()`.
  offer(text, revert) {
    this.#push({ text, revert });
  }

  // Do something later by `commit(isLast)`, unless `revert()` is called before. `isLast` says that the page is left.
  defer(text, revert, commit) {
    const action = { text, revert, commit };
    action.timer = setTimeout(() => this.#commit(action, false), DELETED_AFTER_MS);
    this.#push(action);
  }

  undo() {
    const action = this.#actions.pop();
    if (!action) return;
    clearTimeout(action.timer);
    action.revert();
    announce(t('js.teach.undone'));
    const latest = this.#actions.at(-1);
    if (latest) this.#show(latest);
    else show(byId('undo-bar'), false);
  }

  // Do at once what was to be done later.
  flush(isLast = false) {
    return Promise.all(this.#actions.filter(({ commit }) => commit).map((action) => this.#commit(action, isLast)));
  }

  #push(action) {
    this.#actions.push(action);
    this.#show(action);
    announce(action.text());
  }

  async #commit(action, isLast) {
    clearTimeout(action.timer);
    if (this.#actions.at(-1) === action) show(byId('undo-bar'), false);
    this.#actions.splice(this.#actions.indexOf(action), 1);
    await action.commit(isLast);
  }

  #show({ text, commit }) {
    clearTimeout(this.#timer);
    write(byId('undo-text'), text);
    show(byId('undo-bar'));
    if (!commit) this.#timer = setTimeout(() => show(byId('undo-bar'), false), SHOWN_MS);
  }
}
