/**
 * Picture levels 0..255 and what they stand for: the pixel laws of sdxl_mel/sound/laws.py, and joins of pictures in the
 * power domain (sdxl_mel/sound/blend.py). Pictures are planes (channels, n_mels, frames), row 0 the lowest band.
 */

import { roundHalfEven } from "./rounding.js";

const SMALLEST_RATIO = 1e-10; // Of the maximum; keeps silence out of the logarithm.
const LARGEST_LEVEL = 255;

/** The functions {value, mel} of a spec's law, inverse to each other where values are in 0..1. */
export function lawOf({ law, quantity }) {
  switch (law.kind) {
    case "log1p": {
      const whole = Math.log1p(law.mu);
      return {
        value: (mel) => Math.log1p((law.mu / law.reference) * mel) / whole,
        mel: (value) => Math.expm1(value * whole) * (law.reference / law.mu),
      };
    }
    case "decibel": {
      const [decade, span] = [quantity === "amplitude" ? 20 : 10, law.ceiling_db - law.floor_db];
      return {
        value: (mel) => (decade * Math.log10(Math.max(mel, SMALLEST_RATIO)) - law.floor_db) / span,
        mel: (value) => 10 ** ((value * span + law.floor_db) / decade),
      };
    }
    case "power": {
      const turned = (value) => (law.inverted ? 1 - value : value);
      return {
        value: (mel) => turned(Math.min(mel / law.reference, 1) ** law.exponent),
        mel: (value) => law.reference * turned(value) ** (1 / law.exponent),
      };
    }
    case "log": {
      const [floor, whole] = [Math.log(law.floor), Math.log(law.ceiling / law.floor)];
      return {
        value: (mel) => (Math.log(Math.min(Math.max(mel, law.floor), law.ceiling)) - floor) / whole,
        mel: (value) => law.floor * (law.ceiling / law.floor) ** value,
      };
    }
  }
  throw new Error(`the spec has a pixel law that this page does not know: ${law.kind}`);
}

/** Values in 0..1 as levels. */
export function quantised(values) {
  const level = (value) => Math.fround(Math.min(Math.max(value, 0), 1) * LARGEST_LEVEL);
  return Uint8Array.from(values, (value) => roundHalfEven(level(value)));
}

/** The mel value of each of the 256 levels. */
export function melOfLevels(spec) {
  const { mel } = lawOf(spec);
  return Float32Array.from({ length: LARGEST_LEVEL + 1 }, (_, level) => mel(Math.fround(level / LARGEST_LEVEL)));
}

/** Weights that rise from 0 to 1 over `frames` frames; with their own reverse they sum to 1. */
export function raisedCosine(frames) {
  return Float32Array.from({ length: frames }, (_, frame) => 0.5 - 0.5 * Math.cos((Math.PI * (frame + 0.5)) / frames));
}

/** A picture of `width` frames, all black. */
export function blankPicture(channels, height, width) {
  return { channels, height, width, levels: new Uint8Array(channels * height * width) };
}

/** `count` frames of a picture from `first` on. */
export function framesOf({ channels, height, width, levels }, first, count) {
  const part = blankPicture(channels, height, count);
  for (let row = 0; row < channels * height; row++) {
    part.levels.set(levels.subarray(row * width + first, row * width + first + count), row * count);
  }
  return part;
}

/** Write `tile` into `canvas` at frame `start`; its first `overlap` frames are blended with what is there. */
export function paste(canvas, tile, start, overlap, spec) {
  const [{ value }, mel, weights] = [lawOf(spec), melOfLevels(spec), raisedCosine(overlap)];
  const power = spec.quantity === "power" ? 1 : 2;
  for (let row = 0; row < canvas.channels * canvas.height; row++) {
    const [to, from] = [row * canvas.width + start, row * tile.width];
    for (let frame = 0; frame < overlap; frame++) {
      const [earlier, later] = [mel[canvas.levels[to + frame]], mel[tile.levels[from + frame]]];
      const mixed = (1 - weights[frame]) * earlier ** power + weights[frame] * later ** power;
      canvas.levels[to + frame] = quantised([value(mixed ** (1 / power))])[0];
    }
    canvas.levels.set(tile.levels.subarray(from + overlap, from + tile.width), to + overlap);
  }
}

/** The picture with its last `overlap` frames laid over its first, so that its end leads into its start. */
export function closedLoop(picture, overlap, spec) {
  const first = framesOf(picture, picture.width - overlap, overlap);
  paste(first, framesOf(picture, 0, overlap), 0, overlap, spec);
  const closed = framesOf(picture, 0, picture.width - overlap);
  for (let row = 0; row < picture.channels * picture.height; row++) {
    closed.levels.set(first.levels.subarray(row * overlap, (row + 1) * overlap), row * closed.width);
  }
  return closed;
}

/** A loop turned by at most `reach` frames either way, so that it ends where least changes. */
export function turnedLoop(picture, reach) {
  const { channels, height, width, levels } = picture;
  const change = new Float64Array(width); // From each frame to the next.
  for (let row = 0, at = 0; row < channels * height; row++) {
    for (let frame = 0; frame < width; frame++, at++) {
      change[frame] += Math.abs(levels[row * width + ((frame + 1) % width)] - levels[at]);
    }
  }
  const turns = Array.from({ length: 2 * reach + 1 }, (_, index) => index - reach);
  turns.sort((one, other) => Math.abs(one) - Math.abs(other));
  const cost = (turn) => change[(turn - 1 + width) % width];
  const best = turns.reduce((found, turn) => (cost(turn) < cost(found) ? turn : found));
  const turned = framesOf(picture, 0, width);
  for (let row = 0; row < channels * height; row++) {
    for (let frame = 0; frame < width; frame++) {
      turned.levels[row * width + frame] = levels[row * width + ((frame + best + width) % width)];
    }
  }
  return turned;
}
