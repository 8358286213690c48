// The server's facts about photos: their formats, and the size to which the model has them resized.

const page = document.getElementById('page').dataset;

// Of each format its name, the pattern of its first bytes, and its type.
export const formats = JSON.parse(page.formats);
export const headBytes = Number(page.headBytes);
// The endings of photos' file names.
export const suffixes = page.suffixes.split(' ');
// The short side to which the model that answers has photos resized, in pixels.
export const resized = Number(page.resized);
// How heat maps are drawn: see app/photos/heatmaps.py.
export const heatmap = JSON.parse(page.heatmap);
