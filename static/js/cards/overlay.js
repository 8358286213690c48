// The heat map, drawn over the photo from the grid of numbers in the answer.

import { heatmap } from '../photos/facts.js';
import { colour } from './colours.js';

const TILE = 112;
const MAX_SIDE = 640;

// Draw a heat map on a canvas of the photo's proportions; `crop` is the part that the model was given.
export function drawOverlay(canvas, frame, grid, crop, opacity) {
  const { context, left, top, wide, high } = darken(canvas, frame, crop);
  context.imageSmoothingQuality = 'high';
  context.drawImage(tile(grid, opacity), left, top, wide, high);
}

// Darken all of the photo but `crop`.
export function darken(canvas, { width, height }, crop) {
  const scale = MAX_SIDE / Math.max(width, height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext('2d');
  const left = crop.left * canvas.width;
  const top = crop.top * canvas.height;
  const wide = (crop.right - crop.left) * canvas.width;
  const high = (crop.bottom - crop.top) * canvas.height;
  context.fillStyle = `rgb(0 0 0 / ${heatmap.outside})`;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.clearRect(left, top, wide, high);
  return { context, left, top, wide, high };
}

function tile(grid, opacity) {
  const canvas = Object.assign(document.createElement('canvas'), { width: TILE, height: TILE });
  const context = canvas.getContext('2d');
  const image = context.createImageData(TILE, TILE);
  for (let y = 0; y < TILE; y += 1) {
    for (let x = 0; x < TILE; x += 1) {
      const value = sample(grid, ((x + 0.5) / TILE) * grid[0].length, ((y + 0.5) / TILE) * grid.length);
      image.data.set([...colour(value), Math.round(255 * alpha(value, opacity))], 4 * (y * TILE + x));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// Where the model saw little the photo shows through.
function alpha(value, opacity) {
  return opacity * (heatmap.floor + (1 - heatmap.floor) * value);
}

// The grid's value at a point, between the centres of its cells.
function sample(grid, x, y) {
  const [left, right, across] = between(x, grid[0].length);
  const [above, below, down] = between(y, grid.length);
  const mix = (first, second, part) => first + (second - first) * part;
  return mix(
    mix(grid[above][left], grid[above][right], across),
    mix(grid[below][left], grid[below][right], across),
    down,
  );
}

function between(place, count) {
  const centre = Math.min(Math.max(place - 0.5, 0), count - 1);
  const low = Math.floor(centre);
  return [low, Math.min(low + 1, count - 1), centre - low];
}

// Where the grid is strongest: 0 to 8, a ninth of the square, row by row.
export function strongestPlace(grid) {
  const values = grid.flat();
  const at = values.indexOf(Math.max(...values));
  const third = (index, count) => Math.min(2, Math.floor((3 * (index + 0.5)) / count));
  return 3 * third(Math.floor(at / grid[0].length), grid.length) + third(at % grid[0].length, grid[0].length);
}

// Return whether the model saw less than the whole photo.
export function hasOutside(crop) {
  return crop.left > 0.005 || crop.top > 0.005 || crop.right < 0.995 || crop.bottom < 0.995;
}
