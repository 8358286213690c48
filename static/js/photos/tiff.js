// The one thing that a photo's metadata is needed for: which way up it is (EXIF, a small TIFF file).

const ORIENTATION = 0x0112;
const SHORT = 3;

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
