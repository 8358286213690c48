// Whether a photo may lack pixels although its file is whole by the rules of its kind. A browser paints something in
// their place; the server sees it by the file itself.

import { endOfScan } from '../photos/whole.js';

// A download that was not finished, or a file rescued from a damaged card, has its full size and filling at its end.
// Files of the other kinds are whole only with an end of their own behind their pixels, or may end in any colour.
const FILLED_KINDS = ['GIF', 'WebP', 'AVIF', 'HEIC'];
const FILLINGS = [0x00, 0xff];
const MIN_FILLING = 32;
// What decoders paint from a JPEG's early end on: the middle grey, also of CMYK.
const UNFINISHED = [[127, 129], [63, 65]];
const COEFFICIENTS = 64; // of a block
const PROGRESSIVE = [0xc2, 0xca];

// The picture is upright, so that the last pixel of the file may be in any corner. A point is given by its shares of
// the width and the height.
const CORNERS = [[[0, 0]], [[1, 0]], [[0, 1]], [[1, 1]]];
const EDGES = CORNERS.map(([[x, y]]) => Array.from({ length: 16 }, (_, at) => (x === y ? [x, at / 15] : [at / 15, y])));

// Return whether a photo that the browser has decoded may lack pixels.
export function mayLackPixels({ kind, bytes, bitmap, limitBytes }) {
  if (FILLED_KINDS.includes(kind)) return endsInFilling(bytes);
  if (kind !== 'JPEG') return false;
  // Few photos that are grey in a corner lack pixels. One over the limit would be refused, so it needs a whole grey edge.
  return isUnfinished(bitmap, bytes.length > limitBytes ? EDGES : CORNERS) || lacksScans(bytes);
}

function endsInFilling(bytes) {
  const end = bytes.subarray(-MIN_FILLING);
  return FILLINGS.includes(end[0]) && end.every((byte) => byte === end[0]);
}

// Return whether all points of one of the lines have the colour of an early end.
function isUnfinished(bitmap, lines) {
  const points = lines.flat();
  const [right, bottom] = [bitmap.width - 1, bitmap.height - 1];
  const canvas = Object.assign(document.createElement('canvas'), { width: points.length, height: 1 });
  const context = canvas.getContext('2d');
  points.forEach(([x, y], at) => context.drawImage(bitmap, Math.round(x * right), Math.round(y * bottom), 1, 1, at, 0, 1, 1));
  const { data } = context.getImageData(0, 0, points.length, 1);
  const isGrey = points.map((_, at) => UNFINISHED.some(([low, high]) => (
    data.slice(4 * at, 4 * at + 3).every((level) => level >= low && level <= high))));
  return lines.some((line, number) => line.every((_, at) => isGrey[line.length * number + at]));
}

// Return whether the scans of a JPEG do not hold all bits of all coefficients (ITU-T T.81, sections B.2.2 and B.2.3).
function lacksScans(bytes) {
  const missing = new Set();
  let isProgressive = false;
  for (let at = 2; at + 4 <= bytes.length && bytes[at + 1] !== 0xd9; ) {
    const marker = bytes[at + 1];
    if (marker === 0xff) { at += 1; continue; } // a fill byte
    const end = at + 2 + 256 * bytes[at + 2] + bytes[at + 3];
    const segment = bytes.subarray(at + 4, end);
    if (isFrame(marker)) {
      isProgressive = PROGRESSIVE.includes(marker);
      for (const each of coefficients(segment.subarray(6), 3)) missing.add(each);
    }
    if (marker === 0xda) {
      const [first, last, bits] = isProgressive ? segment.subarray(-3) : [0, COEFFICIENTS - 1, 0];
      for (const each of coefficients(segment.subarray(1, -3), 2, first, last)) {
        if (bits & 15) missing.add(each); // their last bits are to come
        else missing.delete(each);
      }
    }
    at = marker === 0xda ? endOfScan(bytes, end) : end;
  }
  return missing.size > 0;
}

// All starts of a frame except tables (DHT), a reserved code (JPG) and conditions of arithmetic coding (DAC).
function isFrame(marker) {
  return marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
}

// Number the coefficients of components, whose own numbers are `step` bytes apart.
function coefficients(components, step, first = 0, last = COEFFICIENTS - 1) {
  const numbers = [...components].filter((_, index) => index % step === 0);
  const places = Array.from({ length: last - first + 1 }, (_, index) => first + index);
  return numbers.flatMap((number) => places.map((place) => COEFFICIENTS * number + place));
}
