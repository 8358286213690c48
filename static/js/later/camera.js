// A photo from a computer's camera. A phone's own camera is opened by the file field beside it.

import { byId, show } from '../page/dom.js';
import { complain } from '../page/message.js';
import { t } from '../page/words.js';
import { closeCamera, mayUseCamera, openCamera, takePicture } from './viewfinder.js';

const SIZE = [1920, 1080];

export async function listenToCamera(give) {
  byId('webcam').addEventListener('click', open);
  byId('snap').addEventListener('click', () => snap(give));
  byId('camera-close').addEventListener('click', () => byId('camera-view').close());
  byId('camera-view').addEventListener('close', () => closeCamera(byId('viewfinder'))); // also by Escape
  show(byId('webcam-choice'), await hasCamera());
}

async function hasCamera() {
  const isForFinger = matchMedia('(any-pointer: coarse)').matches;
  if (isForFinger || !mayUseCamera() || !byId('camera-view').showModal) return false;
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.some(({ kind }) => kind === 'videoinput');
}

async function open() {
  try {
    await openCamera(byId('viewfinder'), SIZE);
  } catch (error) {
    console.info('The camera cannot be used.', error);
    complain(() => t('js.no_camera'));
    return;
  }
  byId('camera-view').showModal();
}

async function snap(give) {
  const photo = await takePicture(byId('viewfinder'));
  if (!photo) return;
  byId('camera-view').close();
  give([photo]);
}
