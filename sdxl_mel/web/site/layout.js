/** How long a result is, in frames and in latent columns, and where its views lie: sdxl_mel/synthesis/layout.py. */

import { roundHalfEven } from "./rounding.js";
import { placeViews } from "./views.js";

/** The VAE makes one latent of so many by so many pixels. */
export const LATENT_FACTOR = 8;
const LOOP_COLUMNS = 4; // The UNet halves its width twice: other circles of latents would break.
const JOINT_OVERLAP = 0.5;

/** {frames, columns, width, starts, loop, long} of a result of `seconds` (null = one tile). Throws if it is too short. */
export function layOut(seconds, loop, spec) {
  const perSecond = spec.sample_rate / spec.hop_length;
  let frames = seconds === null ? spec.width : roundHalfEven(seconds * perSecond);
  const least = LATENT_FACTOR * LOOP_COLUMNS;
  if (!(frames >= least)) throw new Error(`${seconds} seconds are too short; give at least ${secondsText(least / perSecond)}`);
  const width = spec.width / LATENT_FACTOR;
  let columns = Math.ceil(frames / LATENT_FACTOR);
  if (loop) {
    columns = roundHalfEven(columns / LOOP_COLUMNS) * LOOP_COLUMNS;
    frames = columns * LATENT_FACTOR;
  }
  const long = columns > width;
  const starts = long ? placeViews(columns, width, roundHalfEven(JOINT_OVERLAP * width), loop) : [0];
  // A tile is drawn whole and cropped; a loop cannot be cropped, so it is drawn as short as it is.
  return { frames, columns: long || loop ? columns : width, width, starts, loop, long };
}

function secondsText(seconds) {
  return (Math.ceil(seconds * 100) / 100).toFixed(2);
}
