// The small pictures that the server keeps. An image element cannot send a key, so with one they are fetched.

import { currentKey } from '../page/access.js';
import { needsKey } from '../page/words.js';
import { url } from '../server/address.js';
import { call } from './api.js';

const fetched = new WeakMap();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) fetchNow(target);
});

// Show a photo's thumbnail when it comes near the window.
export function showThumbnail(image, address) {
  if (needsKey && currentKey()) {
    fetched.set(image, address);
    watcher.observe(image);
  } else image.src = url(address);
}

async function fetchNow(image) {
  watcher.unobserve(image);
  try {
    const blob = await (await call('GET', fetched.get(image))).blob();
    image.src = URL.createObjectURL(blob);
    image.onload = () => URL.revokeObjectURL(image.src);
  } catch (error) {
    console.info('A thumbnail cannot be shown.', error); // its photo may have been deleted elsewhere
  }
}
