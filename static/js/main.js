// The page comes alive: photos that are given become cards of this visit.

import { listenForKey } from './access.js';
import { watch } from './connection.js';
import { byId, show } from './dom.js';
import { listen } from './inputs.js';
import { listenForLanguage } from './language.js';
import { Visit } from './visit.js';

const visit = new Visit();
listen((files) => {
  show(byId('message'), false);
  visit.add(files);
});
watch();
listenForKey();
listenForLanguage();
document.documentElement.dataset.alive = 'true';
