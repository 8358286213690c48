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

// Return whether a photo that the browser has decoded may lack pixels.
export function mayLackPixels({ kind, bytes, bitmap, limitBytes }) {
  if (FILLED_KINDS.includes(kind)) return endsInFilling(bytes);
  // Few photos that are grey in a corner lack pixels: one over the limit is scaled rather than refused.
  return kind === 'JPEG' && bytes.length <= limitBytes && (hasUnfinishedCorner(bitmap) || lacksScans(bytes));
}

function endsInFilling(bytes) {
  const end = bytes.subarray(-MIN_FILLING);
  return FILLINGS.includes(end[0]) && end.every((byte) => byte === end[0]);
}

// The picture is upright, so that the last pixel of the file may be in any corner.
function hasUnfinishedCorner(bitmap) {
  const { width, height } = bitmap;
  const context = Object.assign(document.createElement('canvas'), { width: 2, height: 2 }).getContext('2d');
  for (const [x, y] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
    context.drawImage(bitmap, x * (width - 1), y * (height - 1), 1, 1, x, y, 1, 1);
  }
  const { data } = context.getImageData(0, 0, 2, 2);
  const isOne = (at) => UNFINISHED.some(([low, high]) => data.slice(at, at + 3).every((level) => level >= low && level <= high));
  return [0, 4, 8, 12].some(isOne);
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

// All starts of a frame but for tables (DHT), a reserved code (JPG) and conditions of arithmetic coding (DAC).
function isFrame(marker) {
  return marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
}

// Number the coefficients of components, whose own numbers are `step` bytes apart.
function coefficients(components, step, first = 0, last = COEFFICIENTS - 1) {
  const numbers = [...components].filter((_, index) => index % step === 0);
  const places = Array.from({ length: last - first + 1 }, (_, index) => first + index);
  return numbers.flatMap((number) => places.map((place) => COEFFICIENTS * number + place));
}
