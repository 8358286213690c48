// TIFF's directory, which EXIF uses too: of a photo's metadata only its orientation is needed.

const ORIENTATION = 0x0112;
const SHORT = 3;
const LONG = 4;

// Return the entries of the first directory of a classic TIFF, or null for other data. Throws RangeError if the
// directory lies beyond the end.
export function directoryEntries(view) {
  const isLittle = view.getUint16(0) === 0x4949;
  if (view.getUint16(2, isLittle) !== 42) return null;
  const directory = view.getUint32(4, isLittle);
  const count = view.getUint16(directory, isLittle);
  return Array.from({ length: count }, (_, index) => {
    const at = directory + 2 + 12 * index;
    const [tag, type] = [view.getUint16(at, isLittle), view.getUint16(at + 2, isLittle)];
    return { tag, type, count: view.getUint32(at + 4, isLittle), at: at + 8, isLittle };
  });
}

// Return the numbers of an entry of the types SHORT and LONG; others have none. Throws RangeError beyond the end.
export function readValues(view, { type, count, at, isLittle }) {
  if (type !== SHORT && type !== LONG) return [];
  const size = type === SHORT ? 2 : 4;
  const start = count * size <= 4 ? at : view.getUint32(at, isLittle);
  if (start + count * size > view.byteLength) throw new RangeError('The values lie beyond the end.');
  const read = type === SHORT ? 'getUint16' : 'getUint32';
  return Array.from({ length: count }, (_, index) => view[read](start + index * size, isLittle));
}

// Return the orientation, 1 to 8; 1 where none can be read.
export function readOrientation(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 8) return 1;
  const isLittle = view.getUint16(0) === 0x4949;
  const directory = view.getUint32(4, isLittle);
  if (directory + 2 > bytes.length) return 1;
  const count = view.getUint16(directory, isLittle);
  for (let at = directory + 2, index = 0; index < count && at + 12 <= bytes.length; index += 1, at += 12) {
    if (view.getUint16(at, isLittle) === ORIENTATION && view.getUint16(at + 2, isLittle) === SHORT) {
      const value = view.getUint16(at + 8, isLittle);
      return value >= 1 && value <= 8 ? value : 1;
    }
  }
  return 1;
}

// Write a TIFF file that holds an orientation and nothing else.
export function writeOrientation(orientation) {
  const view = new DataView(new ArrayBuffer(26));
  view.setUint32(0, 0x4d4d002a);
  view.setUint32(4, 8);
  view.setUint16(8, 1);
  view.setUint16(10, ORIENTATION);
  view.setUint16(12, SHORT);
  view.setUint32(14, 1);
  view.setUint16(18, orientation);
  return new Uint8Array(view.buffer);
}
