/** Where times and frequencies lie on a plot: between pixels from its corner, and seconds and hertz. */

import { heightOf, hzAt } from "./axes.js";

/** What lies at (x, y) of a plot of {width, height} pixels: {time, height, hz}; `boxOf` is the inverse for ranges. */
export function placeAt(x, y, view, size, seconds, spec) {
  const { start, end, low, high } = view;
  const time = clamped(start + (x / size.width) * (end - start), seconds);
  const height = clamped(high - (y / size.height) * (high - low), 1);
  return { time, height, hz: spec ? hzAt(height, spec) : 0 };
}

/** The rectangle {left, top, width, height} of a range {start, end} in seconds, {low, high} in hertz or all of them. */
export function boxOf({ start, end, low, high }, view, size, spec) {
  const x = (time) => clamped(((time - view.start) / (view.end - view.start)) * size.width, size.width);
  const y = (hz) => {
    const height = spec ? heightOf(hz, spec) : 0;
    return clamped(((view.high - height) / (view.high - view.low)) * size.height, size.height);
  };
  const [left, right] = [x(start), x(end)];
  const [top, bottom] = high === undefined ? [0, size.height] : [y(high), y(low)];
  return { left, top, width: right - left, height: bottom - top };
}

function clamped(value, most) {
  return Math.min(Math.max(value, 0), most);
}
