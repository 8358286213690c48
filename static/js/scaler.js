// A photo scaled to what the model needs, as a JPEG: in a worker, so that the page stays quick, else in the page.

import { scaleDown } from './resample.js';

// Twice the side of what the model sees, so that nothing it could see is lost.
export const SHORT_SIDE = 640;
const QUALITY = 0.98;

const isWorker = typeof WorkerGlobalScope !== 'undefined';

export function scaledSize({ width, height }) {
  const factor = Math.min(1, SHORT_SIDE / Math.min(width, height));
  return [width, height].map((side) => Math.max(1, Math.round(side * factor)));
}

// Encode a bitmap, scaled down; closes it.
export async function encodeScaled(bitmap) {
  const [width, height] = scaledSize(bitmap);
  const pixels = scaleDown(bitmap, width, height, makeCanvas);
  bitmap.close();
  const canvas = makeCanvas(width, height);
  canvas.getContext('2d', { alpha: false }).putImageData(pixels, 0, 0);
  if (isWorker) return canvas.convertToBlob({ type: 'image/jpeg', quality: QUALITY });
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', QUALITY));
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
