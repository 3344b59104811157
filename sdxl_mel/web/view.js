/** The part of a picture in sight: `start` to `end` in seconds, `low` to `high` in heights 0..1. Views are values. */

const SHORTEST_SECONDS = 0.05;
const LEAST_HEIGHT = 0.02;

/** All of a picture of `seconds`. */
export function whole(seconds) {
  return { start: 0, end: seconds, low: 0, high: 1 };
}

/** Whether a view shows less than all of `seconds` in time. */
export function isZoomed(view, seconds) {
  return view.end - view.start < seconds - 1e-6;
}

/** `view` with its time made `factor` times as long about `about` seconds. */
export function zoomTime(view, factor, about, seconds) {
  const [start, end] = scaled(view.start, view.end, factor, about, Math.min(SHORTEST_SECONDS, seconds), seconds);
  return { ...view, start, end };
}

/** `view` with its range of heights made `factor` times as large about the height `about`. */
export function zoomHeight(view, factor, about) {
  const [low, high] = scaled(view.low, view.high, factor, about, LEAST_HEIGHT, 1);
  return { ...view, low, high };
}

/** `view` moved by `by` seconds. */
export function panTime(view, by, seconds) {
  const [start, end] = moved(view.start, view.end, by, seconds);
  return { ...view, start, end };
}

/** `view` moved by a height. */
export function panHeight(view, by) {
  const [low, high] = moved(view.low, view.high, by, 1);
  return { ...view, low, high };
}

function scaled(from, to, factor, about, least, most) {
  const size = Math.min(Math.max((to - from) * factor, least), most);
  const centre = Math.min(Math.max(about, from), to);
  const start = centre - ((centre - from) / (to - from)) * size;
  return moved(start, start + size, 0, most);
}

function moved(from, to, by, most) {
  const start = Math.min(Math.max(from + by, 0), Math.max(most - (to - from), 0));
  return [start, start + (to - from)];
}
