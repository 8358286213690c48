// Scaling down with a Lanczos filter, row strip by row strip. Browsers' own scaling blurs more than the model
// notices: answers would move by up to 0.1, here they stay where they are for the full photo.

const LOBES = 3;
// The server halves what it is sent. Halving with the bilinear filter of ResNet-18 blurs a little more than resizing
// the whole photo would; with the bicubic one of the packaged model it does not. This much sharpening is the best for
// both: the least squares of the two filters' responses, with the spectrum of photos.
const SHARPENING = 0.02;
const STRIP_ROWS = 128;

function lanczos(x) {
  if (x === 0) return 1;
  if (Math.abs(x) >= LOBES) return 0;
  const angle = Math.PI * x;
  return (LOBES * Math.sin(angle) * Math.sin(angle / LOBES)) / (angle * angle);
}

function sharpLanczos(x) {
  return (1 + 2 * SHARPENING) * lanczos(x) - SHARPENING * (lanczos(x - 1) + lanczos(x + 1));
}

// For each new position: the first old one that counts, and the weights of it and its followers.
function kernel(oldLength, newLength) {
  const scale = oldLength / newLength;
  const width = Math.max(scale, 1);
  const filter = scale > 1 ? sharpLanczos : lanczos; // a photo of this size already stays as it is
  const reach = (LOBES + 1) * width;
  return Array.from({ length: newLength }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - reach));
    const last = Math.min(oldLength, Math.ceil(centre + reach));
    const weights = Float32Array.from({ length: last - first }, (__, at) => filter((first + at + 0.5 - centre) / width));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: weights.map((weight) => weight / total) };
  });
}

// Scale a bitmap; `makeCanvas(width, height)` makes the canvas to read it through. Returns ImageData.
export function scaleDown(bitmap, width, height, makeCanvas) {
  const rows = squeezeRows(bitmap, width, makeCanvas);
  const result = new ImageData(width, height);
  result.data.fill(255);
  kernel(bitmap.height, height).forEach(({ first, weights }, y) => {
    for (let x = 0; x < width; x += 1) {
      for (let channel = 0; channel < 3; channel += 1) {
        let sum = 0;
        for (let at = 0, from = 3 * (first * width + x) + channel; at < weights.length; at += 1, from += 3 * width) {
          sum += weights[at] * rows[from];
        }
        result.data[4 * (y * width + x) + channel] = sum; // rounds and clamps
      }
    }
  });
  return result;
}

// Make each row of the bitmap `width` long; three numbers a pixel.
function squeezeRows(bitmap, width, makeCanvas) {
  const canvas = makeCanvas(bitmap.width, Math.min(STRIP_ROWS, bitmap.height));
  const context = canvas.getContext('2d', { alpha: false, willReadFrequently: true });
  const columns = kernel(bitmap.width, width);
  const rows = new Float32Array(3 * width * bitmap.height);
  for (let top = 0; top < bitmap.height; top += STRIP_ROWS) {
    context.fillStyle = '#fff'; // what is transparent is white, as on the server
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, -top);
    const count = Math.min(STRIP_ROWS, bitmap.height - top);
    const { data } = context.getImageData(0, 0, bitmap.width, count);
    for (let y = 0; y < count; y += 1) {
      squeezeRow(data, 4 * y * bitmap.width, columns, rows, 3 * (top + y) * width);
    }
  }
  return rows;
}

function squeezeRow(data, start, columns, rows, target) {
  for (let x = 0; x < columns.length; x += 1) {
    const { first, weights } = columns[x];
    let red = 0;
    let green = 0;
    let blue = 0;
    for (let at = 0, from = start + 4 * first; at < weights.length; at += 1, from += 4) {
      const weight = weights[at];
      red += weight * data[from];
      green += weight * data[from + 1];
      blue += weight * data[from + 2];
    }
    rows[target + 3 * x] = red;
    rows[target + 3 * x + 1] = green;
    rows[target + 3 * x + 2] = blue;
  }
}
