// A photo scaled to what the model needs, without further loss: in a worker, so that the page stays quick, else in the page.

import { scaleDown } from './resample.js';

// Twice the side of what the model sees, so that nothing it could see is lost.
export const SHORT_SIDE = 512;
// The short side to which the server resizes before it crops.
const RESIZED = 256;
// WebP of quality 1 is lossless in Chromium, and a browser without WebP writes PNG. A JPEG of a third of the size
// would move answers by up to 0.1.
const ENCODING = ['image/webp', 1];

const isWorker = typeof WorkerGlobalScope !== 'undefined';

// The size to send: twice what the server resizes to, in whole pixels, so that it halves both sides exactly and crops
// where it would crop the full photo.
export function scaledSize({ width, height }) {
  const short = Math.min(width, height);
  if (short <= SHORT_SIDE) return [width, height];
  return [width, height].map((side) => (SHORT_SIDE / RESIZED) * Math.floor((RESIZED * side) / short));
}

// Encode a bitmap, scaled down; closes it.
export async function encodeScaled(bitmap) {
  const [width, height] = scaledSize(bitmap);
  const pixels = scaleDown(bitmap, width, height, makeCanvas);
  bitmap.close();
  const canvas = makeCanvas(width, height);
  canvas.getContext('2d', { alpha: false }).putImageData(pixels, 0, 0);
  if (isWorker) return canvas.convertToBlob({ type: ENCODING[0], quality: ENCODING[1] });
  return new Promise((resolve) => canvas.toBlob(resolve, ...ENCODING));
}

function makeCanvas(width, height) {
  if (isWorker) return new OffscreenCanvas(width, height);
  return Object.assign(document.createElement('canvas'), { width, height });
}

if (isWorker) {
  onmessage = async ({ data: { id, bitmap } }) => {
    try {
      postMessage({ id, blob: await encodeScaled(bitmap) });
    } catch (error) {
      postMessage({ id, reason: String(error) });
    }
  };
}
