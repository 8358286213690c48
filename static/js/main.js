// The page comes alive: photos that are given become cards of this visit.

import { listenForKey } from './page/access.js';
import { watch } from './page/connection.js';
import { byId } from './page/dom.js';
import { listen } from './page/inputs.js';
import { listenForLanguage } from './page/language.js';
import { hideMessage, listenToMessage } from './page/message.js';
import { listenForModel } from './server/choice.js';
import { Visit } from './cards/visit.js';

const visit = new Visit();
const give = (files) => {
  hideMessage();
  visit.add(files);
};
listen(give);
watch();
listenToMessage();
listenForKey();
listenForLanguage();
listenForModel();
document.documentElement.dataset.alive = 'true';
// Modules in later/ are fetched when they are needed, so that the page comes alive sooner.
import('./later/camera.js').then(({ listenToCamera }) => listenToCamera(give))
  .catch((error) => console.info('The camera is not offered.', error));
const openClasses = async () => (await import('./later/classes.js')).openClasses();
byId('classes').addEventListener('toggle', openClasses, { once: true });
