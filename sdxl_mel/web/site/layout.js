/** How long a result is, in frames and in latent columns, and where its views lie: sdxl_mel/synthesis/layout.py. */

import { roundHalfEven } from "./rounding.js";
import { columnsOf, placeViews } from "./views.js";

/** The VAE makes one latent of so many by so many pixels. */
export const LATENT_FACTOR = 8;
const LOOP_COLUMNS = 4; // The UNet halves its width twice: other circles of latents would break.
const JOINT_OVERLAP = 0.5;
const WINDOW_OVERLAP = 4;

/**
 * {frames, columns, width, starts, loop} of a result of `seconds` (null = one tile): `frames` are kept of `columns`
 * latent columns, and `starts` are the first columns of views of `width` columns. Throws an Error if it is too short.
 */
export function layOut(seconds, loop, spec) {
  const perSecond = spec.sample_rate / spec.hop_length;
  let frames = seconds === null ? spec.width : roundHalfEven(seconds * perSecond);
  const least = LATENT_FACTOR * LOOP_COLUMNS;
  if (!(frames >= least)) {
    throw new Error(`${seconds} seconds are too short: give at least ${(least / perSecond).toFixed(2)}.`);
  }
  const width = spec.width / LATENT_FACTOR;
  let columns = Math.ceil(frames / LATENT_FACTOR);
  if (loop) {
    columns = roundHalfEven(columns / LOOP_COLUMNS) * LOOP_COLUMNS;
    frames = columns * LATENT_FACTOR;
  }
  const shared = roundHalfEven(JOINT_OVERLAP * width);
  if (columns > width) return { frames, columns, width, starts: placeViews(columns, width, shared, loop), loop };
  // A tile is drawn whole and cropped. A loop cannot be cropped: it is drawn as short as it is, seen from both sides.
  if (loop) return { frames, columns, width: columns, starts: [0, columns / 2], loop };
  return { frames, columns: width, width, starts: [0], loop };
}

/**
 * The windows in which a canvas is decoded: their `columns`, the `first` frame of each, the frames of its `overlap`
 * with the one before, and the frames of them all together, `total`. A loop is decoded past its end.
 */
export function decodingWindows({ columns: length, width, loop }) {
  const shared = Math.floor(width / WINDOW_OVERLAP);
  const whole = loop ? length + shared : length;
  const starts = placeViews(whole, width, shared);
  return starts.map((start, window) => {
    const end = window ? starts[window - 1] + width : start;
    return {
      columns: columnsOf(start, Math.min(width, whole), whole).map((column) => column % length),
      first: start * LATENT_FACTOR,
      overlap: Math.max(0, end - start) * LATENT_FACTOR,
      total: whole * LATENT_FACTOR,
    };
  });
}
