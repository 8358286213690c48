// A photo scaled to what the model needs, without further loss: in a worker, so that the page stays quick, else in the page.

import { scaleDown } from './resample.js';

// What is sent is this much larger than what the server resizes to before it crops, so that nothing that the model could
// see is lost.
const FACTOR = 2;
// WebP of quality 1 is lossless in Chromium, and a browser without WebP writes PNG. A JPEG of a third of the size
// would move answers by up to 0.1.
const ENCODING = ['image/webp', 1];
// A longer WebP does not exist: Chromium would cut it off, Firefox fails.
const MAX_WEBP_SIDE = 16_383;
// No browser promises a longer canvas; the scaler draws through one as wide as the photo.
const MAX_CANVAS_SIDE = 32_767;
// What turns a picture upright that is stored in one of EXIF's orientations: the first four numbers of the transformation,
// and where its origin goes, in the new width and height.
const UPRIGHT = {
  2: [-1, 0, 0, 1, 1, 0],
  3: [-1, 0, 0, -1, 1, 1],
  4: [1, 0, 0, -1, 0, 1],
  5: [0, 1, 1, 0, 0, 0],
  6: [0, 1, -1, 0, 1, 0],
  7: [0, -1, -1, 0, 1, 1],
  8: [0, -1, 1, 0, 0, 1],
};

const isWorker = typeof WorkerGlobalScope !== 'undefined';

// Return whether a photo is no larger than what is sent; `resized` is the short side to which the server resizes.
export function isSmall({ width, height }, resized) {
  return Math.min(width, height) <= FACTOR * resized;
}

// The size to send: twice what the server resizes to, in whole pixels, so that it halves both sides exactly and crops
// where it would crop the full photo.
function scaledSize({ width, height }, resized) {
  if (isSmall({ width, height }, resized)) return [width, height];
  const short = Math.min(width, height);
  return [width, height].map((side) => FACTOR * Math.floor((resized * side) / short));
}

// Encode a bitmap, scaled down and turned upright; closes it.
export async function encodeScaled(bitmap, orientation, resized) {
  const [width, height] = scaledSize(bitmap, resized);
  const pixels = scaleDown(bitmap, width, height, makeCanvas);
  bitmap.close();
  const stored = makeCanvas(width, height);
  stored.getContext('2d', { alpha: false }).putImageData(pixels, 0, 0);
  const canvas = upright(stored, orientation);
  const [type, quality] = Math.max(width, height) > MAX_WEBP_SIDE ? ['image/png'] : ENCODING;
  if (isWorker) return canvas.convertToBlob({ type, quality });
  return new Promise((resolve) => canvas.toBlob(resolve, type, quality));
}

export function uprightSides({ width, height }, orientation) {
  return orientation < 5 ? [width, height] : [height, width];
}

function upright(stored, orientation) {
  if (orientation === 1) return stored;
  const [width, height] = uprightSides(stored, orientation);
  const [a, b, c, d, x, y] = UPRIGHT[orientation];
  const canvas = makeCanvas(width, height);
  const context = canvas.getContext('2d', { alpha: false });
  context.imageSmoothingEnabled = false;
  context.setTransform(a, b, c, d, x * width, y * height);
  context.drawImage(stored, 0, 0);
  return canvas;
}

export function canBeScaled(bitmap) {
  return Math.max(bitmap.width, bitmap.height) <= MAX_CANVAS_SIDE && canvasIsHonest();
}

// Return whether a drawing can be read back; against fingerprinting some browsers return noise or white instead.
function canvasIsHonest() {
  const colour = [200, 60, 20];
  const context = makeCanvas(1, 1).getContext('2d');
  context.fillStyle = `rgb(${colour})`;
  context.fillRect(0, 0, 1, 1);
  const { data } = context.getImageData(0, 0, 1, 1);
  return colour.every((value, channel) => Math.abs(value - data[channel]) < 8);
}

function makeCanvas(width, height) {
  if (isWorker) return new OffscreenCanvas(width, height);
  return Object.assign(document.createElement('canvas'), { width, height });
}

if (isWorker) {
  onmessage = async ({ data: { id, bitmap, orientation, resized } }) => {
    try {
      postMessage({ id, blob: await encodeScaled(bitmap, orientation, resized) });
    } catch (error) {
      postMessage({ id, reason: String(error) });
    }
  };
}
