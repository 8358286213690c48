// A photo from a computer's camera. A phone's own camera is opened by the file field beside it.

import { byId, show } from '../page/dom.js';
import { complain } from '../page/message.js';
import { t } from '../page/words.js';

const WANTED = { video: { facingMode: 'environment', width: { ideal: 1920 }, height: { ideal: 1080 } } };
const QUALITY = 0.95;

let stream = null;

export async function listenToCamera(give) {
  byId('webcam').addEventListener('click', open);
  byId('snap').addEventListener('click', () => snap(give));
  byId('camera-close').addEventListener('click', () => byId('camera-view').close());
  byId('camera-view').addEventListener('close', stop); // also by Escape
  show(byId('webcam-choice'), await hasCamera());
}

// Browsers offer cameras only to pages of this machine and to pages over HTTPS.
async function hasCamera() {
  const isForFinger = matchMedia('(any-pointer: coarse)').matches;
  if (isForFinger || !navigator.mediaDevices?.enumerateDevices || !byId('camera-view').showModal) return false;
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.some(({ kind }) => kind === 'videoinput');
}

async function open() {
  try {
    stream = await navigator.mediaDevices.getUserMedia(WANTED);
  } catch (error) {
    console.info('The camera cannot be used.', error);
    complain(() => t('js.no_camera'));
    return;
  }
  byId('viewfinder').srcObject = stream;
  byId('camera-view').showModal();
}

function stop() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  byId('viewfinder').srcObject = null;
}

function snap(give) {
  const video = byId('viewfinder');
  if (video.videoWidth === 0) return; // no picture has come yet
  const canvas = Object.assign(document.createElement('canvas'), { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext('2d').drawImage(video, 0, 0);
  byId('camera-view').close();
  canvas.toBlob((blob) => give([new File([blob], `${timestamp()}.jpg`, { type: 'image/jpeg' })]), 'image/jpeg', QUALITY);
}

function timestamp() {
  return new Date().toLocaleTimeString('sv').replaceAll(':', '-'); // 14-05-59
}
