// A part of a photo, in pixels of its own.

import { resized } from '../photos/facts.js';
import { encodeScaled } from '../photos/scaler.js';

// Cut a part, whose edges are fractions of the upright photo, out of a picture that the browser can decode.
export async function cutOut(picture, { left, top, right, bottom }) {
  const whole = await createImageBitmap(picture, { colorSpaceConversion: 'none' });
  const [x, y] = [Math.round(left * whole.width), Math.round(top * whole.height)];
  const wide = Math.max(1, Math.round((right - left) * whole.width));
  const high = Math.max(1, Math.round((bottom - top) * whole.height));
  const bitmap = await createImageBitmap(whole, x, y, wide, high);
  whole.close();
  return encodeScaled(bitmap, 1, resized); // which closes it
}
