/** Colour maps for spectrograms: curves through OKLCH (Ottosson 2020) in 256 steps that look equally large. */

import { remembered } from "./elements.js";

const SAMPLES = 1024;

/** From silence to loud: lightness, chroma at both ends and in the middle, and the hues in degrees. */
const CURVES = {
  ember: { lightness: [0.14, 0.97], chroma: [0.03, 0.2, 0.07], hues: [285, 340, 400, 460] },
  ocean: { lightness: [0.14, 0.97], chroma: [0.03, 0.13, 0.06], hues: [275, 245, 200, 150] },
  aurora: { lightness: [0.14, 0.96], chroma: [0.04, 0.16, 0.14], hues: [300, 270, 190, 110] },
  grey: { lightness: [0.12, 0.98], chroma: [0, 0, 0], hues: [0, 0, 0, 0] },
  paper: { lightness: [0.99, 0.2], chroma: [0.01, 0.11, 0.05], hues: [90, 60, 20, -60] },
};

/** The names of the maps. */
export const COLOUR_MAPS = Object.keys(CURVES);

/** The name of the map that was chosen for this page, or in this browser before. */
export function chosenColours() {
  return document.documentElement.dataset.melColours ?? remembered("colours", COLOUR_MAPS[0]);
}

const tables = new Map();

/** The 256 colours of a map as [red, green, blue], each 0..255. */
export function colours(name) {
  const curve = CURVES[name] ?? CURVES.ember;
  const points = Array.from({ length: SAMPLES }, (_, k) => oklab(curve, k / (SAMPLES - 1)));
  const lengths = [0];
  for (let k = 1; k < SAMPLES; k++) {
    lengths.push(lengths[k - 1] + Math.hypot(...points[k].map((value, axis) => value - points[k - 1][axis])));
  }
  let at = 0;
  return Array.from({ length: 256 }, (_, level) => {
    while (at < SAMPLES - 1 && lengths[at] < (level / 255) * lengths[SAMPLES - 1] - 1e-9) at++;
    return linearOf(points[at]).map((value) => Math.round(255 * encoded(value)));
  });
}

/** The 256 colours of a map as pixels of an ImageData, seen as 32-bit numbers. */
export function pixels(name) {
  if (!tables.has(name)) {
    const table = new Uint8ClampedArray(colours(name).flatMap((colour) => [...colour, 255]));
    tables.set(name, new Uint32Array(table.buffer));
  }
  return tables.get(name);
}

/** The colours of a map as a CSS gradient from left to right. */
export function gradient(name) {
  const stops = colours(name).filter((_, level) => level % 17 === 0);
  return `linear-gradient(90deg, ${stops.map((colour) => `rgb(${colour.join(" ")})`).join(", ")})`;
}

function oklab(curve, share) {
  const lightness = between(curve.lightness, share);
  const hue = (between(curve.hues, share) * Math.PI) / 180;
  let chroma = between(curve.chroma, share);
  const point = () => [lightness, chroma * Math.cos(hue), chroma * Math.sin(hue)];
  while (chroma > 1e-3 && linearOf(point()).some((value) => value < -1e-4 || value > 1 + 1e-4)) chroma *= 0.97;
  return point();
}

/** The value at `share` 0..1 of a smooth curve through equally spaced values (Catmull and Rom 1974). */
function between(values, share) {
  const place = share * (values.length - 1);
  const index = Math.min(Math.floor(place), values.length - 2);
  const t = place - index;
  const [a, b, c, d] = [-1, 0, 1, 2].map((k) => values[Math.min(Math.max(index + k, 0), values.length - 1)]);
  return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
}

function linearOf([lightness, a, b]) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
}

function encoded(linear) {
  const value = Math.min(Math.max(linear, 0), 1);
  return value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055;
}
