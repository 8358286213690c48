// Text to the clipboard, from a button that says whether it worked.

import { announce, whileBusy } from './dom.js';
import { t } from './words.js';

const SHOWN_MS = 1600;

export function copy(button, text) {
  return whileBusy(button, async (tell) => {
    const outcome = (await copied(text)) ? 'js.copied' : 'js.copy_failed';
    tell(() => t(outcome));
    announce(t(outcome));
    await new Promise((resolve) => setTimeout(resolve, SHOWN_MS));
  });
}

// Browsers close the clipboard to pages from another machine over plain HTTP; there the older command still works.
async function copied(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch (error) {
      console.info('The clipboard refused; trying the old way.', error);
    }
  }
  const field = Object.assign(document.createElement('textarea'), { value: text, className: 'unseen' });
  document.body.append(field);
  field.select();
  const done = document.execCommand('copy');
  field.remove();
  return done;
}
