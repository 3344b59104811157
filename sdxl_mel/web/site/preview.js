/** The picture of a sound while it is drawn: a linear map from the four channels of a latent to a pixel. */

import { pixels } from "../colours.js";

/**
 * Paint latents (4 channels, `rows` and `columns`) on a canvas of as many pixels, the lowest band at the bottom. `map`
 * is the manifest's {weights (5, 3), spread}, its last weights a constant; `spec` that of the picture.
 */
export function paintLatents(canvas, { latents, rows, columns }, map, spec, colours) {
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const painted = new Uint32Array(image.data.buffer);
  const table = pixels(colours);
  const size = rows * columns;
  const darkIsLoud = spec.law?.kind === "power" && spec.law.inverted;
  // Of a stereo picture the middle channel is shown, as the player does.
  const weights = map.weights.map((row) => row[1]);
  const scale = Math.min(1, map.spread / Math.max(spreadOf(latents), 1e-6));
  for (let row = 0; row < rows; row++) {
    const to = (spec.low_at === "top" ? rows - 1 - row : row) * columns;
    for (let column = 0, at = row * columns; column < columns; column++, at++) {
      let value = weights[4];
      for (let channel = 0; channel < 4; channel++) value += scale * weights[channel] * latents[channel * size + at];
      const level = Math.min(Math.max(value, 0), 1);
      painted[to + column] = table[Math.round(255 * (darkIsLoud ? 1 - level : level))];
    }
  }
  context.putImageData(image, 0, 0);
}

function spreadOf(values) {
  let [sum, squares] = [0, 0];
  for (const value of values) [sum, squares] = [sum + value, squares + value * value];
  return Math.sqrt(Math.max(squares / values.length - (sum / values.length) ** 2, 0));
}
