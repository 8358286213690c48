// The camera of the test, from which photos for classes are taken too.

import { announce, byId, show, write } from '../page/dom.js';
import { complain } from '../page/message.js';
import { t } from '../page/words.js';
import { closeCamera, mayUseCamera, openCamera, takePicture } from '../later/viewfinder.js';
import { after } from '../cards/waiting.js';

// The shorter side is less than models need, so that photos need not be scaled.
const SIZE = [640, 480];
const BETWEEN_SHOTS_SECONDS = 0.3;

export class Camera extends EventTarget {
  #video = byId('viewfinder');

  constructor() {
    super();
    byId('camera-toggle').addEventListener('click', () => this.toggle());
    addEventListener('languagechange', () => this.#draw());
    this.#draw();
  }

  get isOn() {
    return this.#video.srcObject !== null;
  }

  toggle() {
    return this.isOn ? this.close() : this.open();
  }

  async open() {
    if (!mayUseCamera()) {
      complain(() => t('js.teach.needs_https'));
      return;
    }
    try {
      await openCamera(this.#video, SIZE);
    } catch (error) {
      console.info('The camera cannot be used.', error);
      complain(() => t('js.no_camera'));
    }
    this.#changed();
  }

  close() {
    closeCamera(this.#video);
    this.#changed();
  }

  // Return what it shows as a file, or null before the first picture.
  picture() {
    return takePicture(this.#video);
  }

  // Take photos until `signal` is aborted, the first at once.
  async shoot(signal, onPhoto) {
    let count = 0;
    while (!signal.aborted && this.isOn) {
      const photo = await this.picture();
      if (photo) onPhoto(photo, (count += 1));
      await after(BETWEEN_SHOTS_SECONDS);
    }
    announce(t('js.teach.taken', { count }));
  }

  #changed() {
    this.#draw();
    this.dispatchEvent(new Event('change'));
  }

  #draw() {
    show(this.#video, this.isOn);
    byId('trial').classList.toggle('live', this.isOn);
    write(byId('camera-toggle'), () => t(this.isOn ? 'js.teach.camera_off' : 'js.teach.camera_on'));
  }
}
