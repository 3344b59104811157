/** Pieces longer than a tile, drawn jointly from overlapping views on one canvas: sdxl_mel/diffusion/long_form.py. */

import { roundHalfEven } from "./rounding.js";
import { TorchGenerator } from "./seeding.js";

/** The first column of each view; neighbours share at least `overlap` columns and all columns are covered. */
export function placeViews(length, width, overlap, loop = false) {
  if (length <= width) return [0];
  const stride = width - overlap;
  const count = loop ? Math.ceil(length / stride) : Math.ceil((length - width) / stride) + 1;
  // Spread evenly, so that no last view overlaps far more than the others.
  const reach = loop ? length / count : (length - width) / (count - 1);
  return Array.from({ length: count }, (_, view) => roundHalfEven(view * reach));
}

/**
 * The views at a step, moved together by a random number of columns, so that borders lie anywhere in the long run. On a
 * line the first and the last stay, for they hold its ends.
 */
export function movedViews(starts, width, length, seed, step) {
  if (starts.length < 2) return starts;
  const generator = new TorchGenerator(seed, "swap", step);
  if (starts.at(-1) + width > length) {
    const turn = generator.integer(0, length);
    return starts.map((start) => (start + turn) % length);
  }
  const steps = starts.slice(1).map((start, view) => start - starts[view]);
  const reach = Math.min(Math.floor(Math.min(...steps) / 2), width - Math.max(...steps));
  const shift = generator.integer(-reach, Math.max(reach, 1));
  return starts.map((start, view) => (view === 0 || view === starts.length - 1 ? start : start + shift));
}

/** The columns of a view, wrapped around the canvas. */
export function columnsOf(start, width, length) {
  return Array.from({ length: Math.min(width, length) }, (_, column) => (start + column) % length);
}

/**
 * Which view gives each column at a step: where several overlap they take turns column by column, and the turn moves on
 * with each step (SaFa, arXiv 2502.05130).
 */
export function ownersOf(starts, width, length, step) {
  const covering = Array.from({ length }, () => []);
  starts.forEach((start, view) => columnsOf(start, width, length).forEach((column) => covering[column].push(view)));
  return covering.map((views, column) => views[(column + step) % views.length]);
}

/** Latents (channels, height, columns) of some columns of a canvas. */
export function columnsTaken(canvas, length, columns) {
  const rows = canvas.length / length;
  const taken = new Float32Array(rows * columns.length);
  for (let row = 0; row < rows; row++) {
    columns.forEach((column, at) => (taken[row * columns.length + at] = canvas[row * length + column]));
  }
  return taken;
}

/**
 * A predictor of a whole canvas of `length` columns, from overlapping views of `width`: `predict` is given the latents
 * of one view and resolves to what the model predicts of it.
 */
export function jointPredictor(predict, { starts, width, columns: length }, seed) {
  return async (latents, timestep, step) => {
    const places = movedViews(starts, width, length, seed, step);
    const owners = ownersOf(places, width, length, step);
    const views = places.map((start) => columnsOf(start, width, length));
    const asked = views.map((columns) => predict(columnsTaken(latents, length, columns), timestep, step));
    const predictions = await Promise.all(asked);
    const result = new Float32Array(latents.length);
    views.forEach((columns, view) => {
      const rows = predictions[view].length / columns.length;
      columns.forEach((column, at) => {
        if (owners[column] !== view) return;
        for (let row = 0; row < rows; row++) {
          result[row * length + column] = predictions[view][row * columns.length + at];
        }
      });
    });
    return result;
  };
}
