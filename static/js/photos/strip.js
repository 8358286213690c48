// Photo files without their metadata: what a decoder needs stays, byte for byte; all else is left out.

import { readOrientation, writeOrientation } from './tiff.js';
import { endOfScan } from './whole.js';

const ascii = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));
const codes = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const EXIF = 'Exif\0\0';
const JFIF_LENGTH = 18; // marker and segment, without a thumbnail

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

// JPEG: segments from SOI to the first EOI. What follows it, such as a motion photo's video, goes too.
export function stripJpeg(bytes) {
  const kept = [];
  let orientation = 1;
  let at = 2;
  while (at + 4 <= bytes.length && bytes[at] === 0xff) {
    const marker = bytes[at + 1];
    if (marker === 0xff) { at += 1; continue; } // a fill byte
    if (marker === 0xd9) break;
    const end = at + 2 + viewOf(bytes).getUint16(at + 2);
    const segment = bytes.subarray(at, end);
    if (marker === 0xe1 && ascii(segment, 4, 10) === EXIF && orientation === 1) {
      orientation = readOrientation(segment.subarray(10));
    }
    if (!isMetadata(marker, segment)) kept.push(marker === 0xe0 ? withoutThumbnail(segment) : segment);
    at = end;
    if (marker === 0xda) {
      at = endOfScan(bytes, end);
      kept.push(bytes.subarray(end, at));
    }
  }
  const isWhole = bytes[at] === 0xff && bytes[at + 1] === 0xd9;
  return [codes('\xff\xd8'), jpegOrientation(orientation), ...kept, codes(isWhole ? '\xff\xd9' : '')];
}

// Application segments and comments, except the two that say how colours are stored.
function isMetadata(marker, segment) {
  if (marker === 0xe0) return ascii(segment, 4, 9) !== 'JFIF\0';
  if (marker === 0xee) return ascii(segment, 4, 9) !== 'Adobe';
  return (marker >= 0xe1 && marker <= 0xef) || marker === 0xfe;
}

function withoutThumbnail(segment) {
  if (segment.length < JFIF_LENGTH) return segment; // cut short
  const header = segment.slice(0, JFIF_LENGTH);
  header.set([0, 16], 2);
  header.set([0, 0], 16);
  return header;
}

function jpegOrientation(orientation) {
  if (orientation === 1) return codes('');
  const tiff = writeOrientation(orientation);
  return new Uint8Array([0xff, 0xe1, 0, 2 + EXIF.length + tiff.length, ...codes(EXIF), ...tiff]);
}

const PNG_KEPT = new Set(['IHDR', 'PLTE', 'tRNS', 'gAMA', 'cHRM', 'sRGB', 'IDAT', 'IEND']);

// PNG: the chunks of the picture itself, up to IEND.
export function stripPng(bytes) {
  const kept = [];
  let orientation = 1;
  let type = '';
  for (let at = 8; at + 8 <= bytes.length && type !== 'IEND';) {
    type = ascii(bytes, at + 4, at + 8);
    const end = at + 12 + viewOf(bytes).getUint32(at);
    if (type === 'eXIf') orientation = readOrientation(bytes.subarray(at + 8, end - 4));
    if (PNG_KEPT.has(type)) kept.push(bytes.subarray(at, end));
    at = end;
  }
  if (orientation !== 1) kept.splice(1, 0, pngChunk('eXIf', writeOrientation(orientation)));
  return [bytes.subarray(0, 8), ...kept];
}

function pngChunk(type, data) {
  const chunk = new Uint8Array(12 + data.length);
  viewOf(chunk).setUint32(0, data.length);
  chunk.set(codes(type), 4);
  chunk.set(data, 8);
  viewOf(chunk).setUint32(8 + data.length, crc32(chunk.subarray(4, 8 + data.length)));
  return chunk;
}

// The checksum of PNG's specification, annex D.
function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

const WEBP_KEPT = new Set(['VP8 ', 'VP8L', 'VP8X', 'ALPH', 'ANIM', 'ANMF']);
const WEBP_FLAGS = { icc: 0x20, exif: 0x08, xmp: 0x04 };

// WebP: the chunks of the picture itself, with a new total length and honest flags in front.
export function stripWebp(bytes, orientation = webpOrientation(bytes)) {
  const kept = webpChunks(bytes).filter(({ type }) => WEBP_KEPT.has(type)).map(({ chunk }) => chunk.slice());
  if (orientation !== 1) kept.push(orientationChunk(orientation));
  if (kept.length > 0 && ascii(kept[0], 0, 4) === 'VP8X') {
    kept[0][8] &= ~(WEBP_FLAGS.icc | WEBP_FLAGS.exif | WEBP_FLAGS.xmp);
    if (orientation !== 1) kept[0][8] |= WEBP_FLAGS.exif;
  }
  const header = bytes.slice(0, 12);
  viewOf(header).setUint32(4, kept.reduce((total, chunk) => total + chunk.length, 4), true);
  return [header, ...kept];
}

function webpChunks(bytes) {
  const chunks = [];
  for (let at = 12; at + 8 <= bytes.length;) {
    const length = viewOf(bytes).getUint32(at + 4, true);
    const end = at + 8 + length + (length % 2);
    const data = bytes.subarray(at + 8, at + 8 + length);
    chunks.push({ type: ascii(bytes, at, at + 4), chunk: bytes.subarray(at, end), data });
    at = end;
  }
  return chunks;
}

export function webpOrientation(bytes) {
  const exif = webpChunks(bytes).find(({ type }) => type === 'EXIF');
  return exif ? readOrientation(withoutPrefix(exif.data)) : 1;
}

// Some writers put JPEG's prefix in front of the TIFF.
function withoutPrefix(data) {
  return ascii(data, 0, EXIF.length) === EXIF ? data.subarray(EXIF.length) : data;
}

function orientationChunk(orientation) {
  const tiff = writeOrientation(orientation);
  return new Uint8Array([...codes('EXIF'), tiff.length, 0, 0, 0, ...tiff]);
}
