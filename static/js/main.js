// The page comes alive: photos that are given become cards of this visit.

import { listenForKey } from './page/access.js';
import { listenToCamera } from './page/camera.js';
import { listenToClasses } from './page/classes.js';
import { watch } from './page/connection.js';
import { listen } from './page/inputs.js';
import { listenForLanguage } from './page/language.js';
import { hideMessage, listenToMessage } from './page/message.js';
import { Visit } from './cards/visit.js';

const visit = new Visit();
const give = (files) => {
  hideMessage();
  visit.add(files);
};
listen(give);
listenToCamera(give);
listenToClasses();
watch();
listenToMessage();
listenForKey();
listenForLanguage();
document.documentElement.dataset.alive = 'true';
