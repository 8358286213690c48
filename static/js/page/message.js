// A message that stays in sight wherever the page is scrolled to, until it is closed or a photo comes.

import { announce, byId, say, show } from './dom.js';

export function complain(trouble) {
  say(byId('message-text'), trouble);
  show(byId('message'));
  announce(trouble());
}

export function hideMessage() {
  show(byId('message'), false);
}

export function listenToMessage() {
  byId('message-close').addEventListener('click', () => {
    hideMessage();
    byId('file').focus({ preventScroll: true });
  });
}
