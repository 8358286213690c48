// A question that must be answered before something is done that cannot be undone.

import { byId, write } from '../page/dom.js';
import { t } from '../page/words.js';

// Ask `question()`; `yes` is the key of the word on the button. Returns whether that was pressed.
export function agree(question, yes) {
  const dialog = byId('question');
  write(byId('question-text'), question);
  write(byId('question-yes'), () => t(yes));
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}
