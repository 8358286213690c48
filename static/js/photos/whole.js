// Whether a photo file is complete. Firefox and WebKit paint what an incomplete file holds and leave the rest blank,
// and the model would classify that; only the file itself shows that something is missing.

import { directoryEntries, readValues } from './tiff.js';

const CHECKS = { JPEG: jpeg, PNG: png, WebP: webp, GIF: gif, BMP: bmp, TIFF: tiff, AVIF: boxes, HEIC: boxes };
const TIFF_OFFSETS = [273, 324]; // of strips and of tiles
const TIFF_COUNTS = [279, 325];
const BMP_UNCOMPRESSED = [0, 3, 6];
const BMP_OS2_HEADER = 12;
const BMP_PADDING = 3;
const BOXES = ['ftyp', 'meta', 'mdat', 'moov', 'free', 'skip'];

// Return whether the photo is complete by the rules of its kind; true for an unknown kind.
export function isWhole(kind, bytes) {
  if (!(kind in CHECKS)) return true;
  try {
    return CHECKS[kind](bytes, new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  } catch (error) {
    if (error instanceof RangeError) return false; // a length or an offset that leads beyond the end
    throw error;
  }
}

// Return where a JPEG's scan ends that starts at `start`: at the next marker that is neither a restart nor a zero.
export function endOfScan(bytes, start) {
  for (let at = bytes.indexOf(0xff, start); at !== -1; at = bytes.indexOf(0xff, at + 1)) {
    const next = bytes[at + 1];
    if (next !== 0x00 && next !== 0xff && !(next >= 0xd0 && next <= 0xd7)) return at;
  }
  return bytes.length;
}

// Segments lead to the end marker; one inside a segment is that of an embedded thumbnail.
function jpeg(bytes, view) {
  let at = 2;
  for (;;) {
    const marker = view.getUint16(at);
    if (marker === 0xffd9) return true;
    if (marker === 0xffff) { at += 1; continue; } // a fill byte
    if (marker < 0xff01) return false;
    at += 2 + view.getUint16(at + 2);
    if (marker === 0xffda) at = endOfScan(bytes, at);
  }
}

function png(bytes, view) {
  for (let at = 8; ; at += 12 + view.getUint32(at)) {
    if (view.getUint32(at + 4) === 0x49454e44) return at + 12 <= bytes.length; // IEND
  }
}

function webp(bytes, view) {
  return 8 + view.getUint32(4, true) <= bytes.length;
}

// The first picture counts; what is missing of an animation after it is not looked at.
function gif(bytes, view) {
  const table = (flags) => (flags & 0x80 ? 3 << ((flags & 7) + 1) : 0);
  let at = 13 + table(view.getUint8(10));
  for (;;) {
    const block = view.getUint8(at);
    if (block === 0x2c) return afterBlocks(view, at + 11 + table(view.getUint8(at + 9))) <= bytes.length;
    if (block !== 0x21) return false;
    at = afterBlocks(view, at + 2);
  }
}

function afterBlocks(view, start) {
  let at = start;
  while (view.getUint8(at) > 0) at += 1 + view.getUint8(at);
  return at + 1;
}

// The rows have a known size, unless they are compressed: those have an end of their own. Some writers leave out the
// padding of the last row.
function bmp(bytes, view) {
  const start = view.getUint32(10, true);
  const isOld = view.getUint32(14, true) === BMP_OS2_HEADER;
  const width = isOld ? view.getUint16(18, true) : view.getInt32(18, true);
  const height = isOld ? view.getUint16(20, true) : Math.abs(view.getInt32(22, true));
  const bits = view.getUint16(isOld ? 24 : 28, true);
  const isPlain = isOld || BMP_UNCOMPRESSED.includes(view.getUint32(30, true));
  if (!isPlain) return true;
  return start + height * 4 * Math.ceil((width * bits) / 32) - BMP_PADDING <= bytes.length;
}

// The first picture's strips or tiles end within the file.
function tiff(bytes, view) {
  const entries = directoryEntries(view);
  if (!entries) return true; // BigTIFF, which no browser decodes
  const find = (tags) => entries.find(({ tag }) => tags.includes(tag));
  const [offsets, counts] = [find(TIFF_OFFSETS), find(TIFF_COUNTS)].map((entry) => (entry ? readValues(view, entry) : []));
  return offsets.every((offset, index) => offset + (counts[index] ?? 0) <= bytes.length);
}

// ISO base media files are boxes one after another; a length of 0 means up to the end, of 1 that 64 bits follow. What
// comes after the boxes of the picture may be anything.
function boxes(bytes, view) {
  let at = 0;
  while (at + 8 <= bytes.length) {
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const size = view.getUint32(at);
    const length = size === 1 ? Number(view.getBigUint64(at + 8)) : size;
    if (length === 0 || !BOXES.includes(type)) return true;
    if (length < 8) return false;
    at += length;
  }
  return at <= bytes.length;
}
