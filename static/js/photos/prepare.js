// From a file to what is sent: scaled down, or stripped of its metadata, or only with consent as it is.

import { formats, headBytes, resized } from './facts.js';
import { Failure } from './failure.js';
import { canBeScaled, encodeScaled, isSmall, uprightSides } from './scaler.js';
import { stripJpeg, stripPng, stripWebp, webpOrientation } from './strip.js';
import { isWhole } from './whole.js';

const SIGNATURES = formats.map(([name, signature]) => [name, new RegExp(`^(?:${signature})`)]);
const TYPES = Object.fromEntries(formats.map(([name, , type]) => [name, type]));
const STRIPPERS = { JPEG: stripJpeg, PNG: stripPng, WebP: stripWebp };
// On its way while the page comes alive. Without it no photo is scaled, and the server sees each file itself.
const doubt = import('../later/doubt.js').catch((error) => {
  console.info('Photos are not scaled.', error);
  return { mayLackPixels: () => true };
});

// Return {original, way, blob, preview}: `way` is scaled, stripped, or original, which needs consent.
export async function prepare(file, limitBytes) {
  const kind = await kindOf(file);
  const bytes = await readAll(file);
  if (bytes && !isWhole(kind, bytes)) return prepareCut(kind, file, bytes, limitBytes);
  const { bitmap, orientation = 1 } = await decodeKind(kind, file, bytes);
  const [width, height] = bitmap ? uprightSides(bitmap, orientation) : [];
  const original = { kind, bytes: file.size, width, height };
  const isFine = orientation === 1 && isSmall({ width, height }, resized);
  const isDoubtful = bytes && bitmap && (await doubt).mayLackPixels({ kind, bytes, bitmap, limitBytes });
  const canScale = Boolean(bitmap) && !isDoubtful && canBeScaled(bitmap);
  const isSent = bytes && kind in STRIPPERS && (isFine || !canScale);
  if (canScale && !isSent) {
    const blob = await scale(bitmap, orientation); // which takes the bitmap over
    return checked({ original, way: 'scaled', blob, preview: blob }, limitBytes);
  }
  bitmap?.close();
  if (!isSent) return checked({ original, way: 'original', blob: file, preview: null }, limitBytes);
  const blob = stripped(kind, bytes);
  return checked({ original, way: 'stripped', blob, preview: bitmap && blob }, limitBytes);
}

// A browser would paint a part of the photo without a warning. The server still reads some files that seem cut short,
// such as a JPEG that lacks only its end marker; files of other kinds are refused here.
function prepareCut(kind, file, bytes, limitBytes) {
  const original = { kind, bytes: file.size };
  if (kind === 'TIFF') return checked({ original, way: 'original', blob: file, preview: null }, limitBytes);
  if (!(kind in STRIPPERS) || file.size > limitBytes) throw new Failure('broken-image');
  return { original, way: 'stripped', blob: stripped(kind, bytes), preview: null };
}

function stripped(kind, bytes) {
  return new Blob(STRIPPERS[kind](bytes), { type: TYPES[kind] });
}

function checked(prepared, limitBytes) {
  if (prepared.blob.size > limitBytes) throw new Failure('too-large');
  return prepared;
}

async function kindOf(file) {
  const head = String.fromCharCode(...(await readHead(file)));
  if (!head) throw new Failure('no-photo');
  const found = SIGNATURES.find(([, signature]) => signature.test(head));
  if (!found) throw new Failure('unsupported-image');
  return found[0];
}

// Return the file's bytes, or null if the browser cannot read so large a file at once.
async function readAll(file) {
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch (error) {
    console.info(`${file.name} cannot be read as a whole.`, error);
    return null;
  }
}

// A folder, or a file that was deleted since it was chosen, cannot be read; it counts as empty.
async function readHead(file) {
  try {
    return new Uint8Array(await file.slice(0, headBytes).arrayBuffer());
  } catch (error) {
    console.info(`${file.name} cannot be read.`, error);
    return new Uint8Array();
  }
}

async function decodeKind(kind, file, bytes) {
  if (kind === 'WebP') return decodeWebp(file, bytes);
  return { bitmap: await decode(kind === 'BMP' && bytes ? await repairedBmp(file, bytes) : file) };
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

// Browsers ignore the orientation in a WebP's metadata; the server does not. So it is decoded without metadata, and
// turned afterwards.
async function decodeWebp(file, bytes) {
  const orientation = bytes ? webpOrientation(bytes) : 1;
  if (orientation === 1) return { bitmap: await decode(file), orientation };
  return { bitmap: await decode(new File(stripWebp(bytes, 1), file.name, { type: 'image/webp' })), orientation };
}

// Return the file as browsers show it correctly.
async function repairedBmp(file, bytes) {
  const { withoutUnusedMask } = await import('../later/bmp.js');
  const repaired = withoutUnusedMask(bytes);
  return repaired ? new File([repaired], file.name, { type: TYPES.BMP }) : file;
}

let worker = null;
let latestId = 0;
const waiting = new Map();

// Scale in the worker if the browser has one that can draw, else in the page.
function scale(bitmap, orientation) {
  if (typeof OffscreenCanvas === 'undefined') return encodeScaled(bitmap, orientation, resized);
  worker ??= startWorker();
  latestId += 1;
  const id = latestId;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, bitmap, orientation, resized }, [bitmap]);
  });
}

function startWorker() {
  const started = new Worker(new URL('scaler.js', import.meta.url), { type: 'module' });
  started.onmessage = ({ data: { id, blob, reason } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (blob) resolve(blob);
    else reject(new Error(reason));
  };
  started.onerror = () => {
    for (const { reject } of waiting.values()) reject(new Error('The scaling script could not be loaded.'));
    waiting.clear();
    worker = null;
  };
  return started;
}
