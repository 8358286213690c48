// The project as a model that the service serves: its address, the line for a shell, and the file to take away.

import { curlTo } from '../cards/snippets.js';
import { saveBlob } from '../later/download.js';
import { copy } from '../page/clipboard.js';
import { announce, byId, show, whileBusy, write } from '../page/dom.js';
import { t } from '../page/words.js';
import { url } from '../server/address.js';
import { call } from './api.js';

export function listenToPublishing(project) {
  const line = () => curlTo(`api/v1/predict?model=${encodeURIComponent(project.name)}`, 'photo.jpg');
  byId('publish').addEventListener('click', () => whileBusy(byId('publish'), (tell) => publish(project, tell)));
  byId('copy-curl').addEventListener('click', () => copy(byId('copy-curl'), line()));
  byId('download').addEventListener('click', () => save(project, byId('download'), 'bundle', `${project.name}.tar`));
  byId('save-file').addEventListener('click', () => save(project, byId('save-file'), 'file', `${project.name}.topthree`));
  const draw = () => {
    const { published } = project.data;
    byId('publish').toggleAttribute('disabled', !project.canAnswer);
    show(byId('published'), Boolean(published));
    write(byId('published-text'), () => t('js.teach.published', { name: project.name, version: published }));
    byId('published-address').textContent = url(`api/v1/predict?model=${encodeURIComponent(project.name)}`);
    byId('published-curl').textContent = line();
  };
  project.addEventListener('change', draw);
}

async function publish(project, tell) {
  tell(() => t('js.teach.publishing'));
  try {
    const { version } = await (await call('POST', project.address('publish'))).json();
    await project.load();
    announce(t('js.teach.published', { name: project.name, version }));
    byId('published').scrollIntoView({ block: 'nearest' });
  } catch (error) {
    project.onTrouble(error);
  }
}

function save(project, button, kind, fallbackName) {
  return whileBusy(button, async (tell) => {
    tell(() => t('js.teach.downloading'));
    try {
      const response = await call('GET', project.address(kind));
      saveBlob(await response.blob(), nameIn(response) ?? fallbackName);
    } catch (error) {
      project.onTrouble(error);
    }
  });
}

function nameIn(response) {
  return /filename="?([^";]+)"?/.exec(response.headers.get('Content-Disposition') ?? '')?.[1];
}
