// From a file to what is sent: scaled down, or stripped of its metadata, or only with consent as it is.

import { stripJpeg, stripPng, stripWebp } from './strip.js';
import { Failure } from './upload.js';
import { limitBytes } from './words.js';

// Twice the side of what the model sees, so that nothing it could see is lost.
const SHORT_SIDE = 512;
const QUALITY = 0.95;

const KINDS = [
  ['JPEG', /^\xff\xd8\xff/],
  ['PNG', /^\x89PNG\r\n\x1a\n/],
  ['WebP', /^RIFF[^]{4}WEBP/],
  ['GIF', /^GIF8[79]a/],
  ['TIFF', /^(II[*+]\0|MM\0[*+])/],
  ['BMP', /^BM[^]{4}\0\0\0\0/],
  ['AVIF', /^[^]{4}ftypavi[fs]/],
  ['HEIC', /^[^]{4}ftyp(he|mi|ms)/],
];
const STRIPPERS = {
  JPEG: [stripJpeg, 'image/jpeg'],
  PNG: [stripPng, 'image/png'],
  WebP: [stripWebp, 'image/webp'],
};

// Return {kind, original, way, blob, preview}: `way` is scaled, stripped, or original, which needs consent.
export async function prepare(file) {
  const kind = await kindOf(file);
  const bitmap = await decode(file);
  const original = { kind, bytes: file.size, width: bitmap?.width, height: bitmap?.height };
  const isSmall = bitmap && Math.min(bitmap.width, bitmap.height) <= SHORT_SIDE;
  if (STRIPPERS[kind] && (isSmall || !bitmap)) {
    bitmap?.close();
    const [strip, type] = STRIPPERS[kind];
    const blob = new Blob(strip(new Uint8Array(await file.arrayBuffer())), { type });
    return checked({ original, way: 'stripped', blob, preview: bitmap && blob });
  }
  if (!bitmap) return checked({ original, way: 'original', blob: file, preview: null });
  const blob = await scale(bitmap);
  return checked({ original, way: 'scaled', blob, preview: blob });
}

function checked(prepared) {
  if (prepared.blob.size > limitBytes) throw new Failure('too-large');
  return prepared;
}

async function kindOf(file) {
  const head = String.fromCharCode(...new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  if (!head) throw new Failure('no-photo');
  const found = KINDS.find(([, signature]) => signature.test(head));
  if (!found) throw new Failure('unsupported-image');
  return found[0];
}

// Pixel values as they are stored: the model was trained on photos read that way.
async function decode(file) {
  try {
    return await createImageBitmap(file, { colorSpaceConversion: 'none' });
  } catch (error) {
    console.info(`This browser cannot decode ${file.name}.`, error);
    return null;
  }
}

async function scale(bitmap) {
  const factor = Math.min(1, SHORT_SIDE / Math.min(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * factor)));
  const small = await createImageBitmap(bitmap, { resizeWidth: width, resizeHeight: height, resizeQuality: 'high' });
  bitmap.close();
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d', { alpha: false });
  context.fillStyle = '#fff'; // what is transparent is white, as on the server
  context.fillRect(0, 0, width, height);
  context.drawImage(small, 0, 0);
  small.close();
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Failure('broken-image'))), 'image/jpeg', QUALITY);
  });
}
