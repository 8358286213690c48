// The heat map's colours: from dark blue to yellow, brighter with every step, so that they can be read in order by
// people who confuse red and green, and in a grey print.

import { heatmap } from '../photos/facts.js';

const STOPS = heatmap.colours;
// For the legend.
const gradient = STOPS.map((stop) => `rgb(${stop.join(' ')})`).join(', ');
document.documentElement.style.setProperty('--ramp', `linear-gradient(90deg, ${gradient})`);

// The colour of a value from 0 to 1 as [red, green, blue].
export function colour(value) {
  const place = Math.min(Math.max(value, 0), 1) * (STOPS.length - 1);
  const index = Math.min(Math.floor(place), STOPS.length - 2);
  const part = place - index;
  return STOPS[index].map((low, channel) => Math.round(low + (STOPS[index + 1][channel] - low) * part));
}
