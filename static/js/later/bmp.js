// BMP files of Windows that name a mask of transparency which no pixel uses, such as pictures of the screen: browsers
// show them as blank, and the server as what they are.

const MASK_AT = 66;
const MASK_BYTES = 4;
const HEADER_WITH_MASK_BYTES = 56;
const MASKS_WITH_TRANSPARENCY = 6; // a kind of compression, by which a shorter header has the mask too

// Return the file without its mask if each pixel is transparent in it, else null.
export function withoutUnusedMask(bytes) {
  if (bytes.length < MASK_AT + MASK_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const number = (at) => view.getUint32(at, true);
  const [bits, mask] = [view.getUint16(28, true), number(MASK_AT)];
  const hasMask = number(30) === MASKS_WITH_TRANSPARENCY || number(14) >= HEADER_WITH_MASK_BYTES;
  if (!hasMask || mask === 0 || (bits !== 16 && bits !== 32)) return null;
  if (pixels(view, bits).some((pixel) => pixel & mask)) return null;
  const copy = bytes.slice();
  copy.fill(0, MASK_AT, MASK_AT + MASK_BYTES);
  return copy;
}

// Return the pixels as numbers, with what fills up each row.
function pixels(view, bits) {
  const [start, width, height] = [view.getUint32(10, true), view.getInt32(18, true), Math.abs(view.getInt32(22, true))];
  const size = height * MASK_BYTES * Math.ceil((Math.abs(width) * bits) / 32);
  const data = view.buffer.slice(view.byteOffset + start, view.byteOffset + Math.min(start + size, view.byteLength));
  return bits === 32 ? new Uint32Array(data, 0, data.byteLength >> 2) : new Uint16Array(data, 0, data.byteLength >> 1);
}
