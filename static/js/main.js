// The page comes alive: photos that are given become cards of this visit.

import { listenForKey } from './page/access.js';
import { watch } from './page/connection.js';
import { byId, show } from './page/dom.js';
import { listen } from './page/inputs.js';
import { listenForLanguage } from './page/language.js';
import { Visit } from './cards/visit.js';

const visit = new Visit();
listen((files) => {
  show(byId('message'), false);
  visit.add(files);
});
watch();
listenForKey();
listenForLanguage();
document.documentElement.dataset.alive = 'true';
