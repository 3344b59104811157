/** Drawing around a picture: its axes, the overview of all of it, and boxes laid over it. */

import { hertzTicks, noteTicks, timeTicks } from "./axes.js";
import { pixels } from "./colours.js";
import { whole } from "./view.js";

const NEAR_END_PIXELS = 10;
const SHADE = "rgb(127 127 127 / 60%)";

/** Draw hertz on the left, notes on the right (not where it is `compact`) and seconds below the rectangle `area`. */
export function drawAxes(context, area, view, spec, { ink, compact, family }) {
  const { start, end, low, high } = view;
  const [right, bottom] = [area.x + area.width, area.y + area.height];
  const y = (height) => area.y + ((high - height) / (high - low)) * area.height;
  context.fillStyle = context.strokeStyle = ink;
  context.font = `11px ${family}`;
  context.lineWidth = 1;
  context.beginPath();
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const { at, text } of hertzTicks(low, high, area.height, spec)) {
    context.fillText(text, area.x - 7, y(at));
    tick(context, area.x - 4, y(at), 4, 0);
  }
  context.textAlign = "left";
  for (const { at, text } of compact ? [] : noteTicks(low, high, area.height, spec)) {
    context.fillText(text, right + 7, y(at));
    tick(context, right, y(at), 4, 0);
  }
  context.textBaseline = "top";
  for (const { at, text } of timeTicks(start, end, area.width, compact ? 48 : 72)) {
    const x = area.x + ((at - start) / (end - start)) * area.width;
    context.textAlign = x < area.x + NEAR_END_PIXELS ? "left" : x > right - NEAR_END_PIXELS ? "right" : "center";
    context.fillText(text, x, bottom + 6);
    tick(context, x, bottom, 0, 4);
  }
  context.stroke();
}

/** Draw all of a picture small, what lies outside the view shaded. */
export function drawOverview(canvas, picture, view, channel, colours, ratio) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const context = sized(canvas, width, height, ratio);
  const area = { x: 0, y: 0, width, height };
  picture.draw(context, whole(picture.seconds), area, channel, colours, pixels(colours));
  const [left, right] = [view.start, view.end].map((time) => (time / picture.seconds) * width);
  context.fillStyle = SHADE;
  context.fillRect(0, 0, left, height);
  context.fillRect(right, 0, width - right, height);
}

/** The context of a canvas that has as many pixels as the screen shows of it, to be drawn on in CSS pixels. */
export function sized(canvas, width, height, ratio) {
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/** Lay an element over the rectangle {left, top, width, height}. */
export function place(box, { left, top, width, height }) {
  Object.assign(box.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
}

function tick(context, x, y, dx, dy) {
  const [left, top] = [Math.round(x) + (dy > 0 ? 0.5 : 0), Math.round(y) + (dx > 0 ? 0.5 : 0)];
  context.moveTo(left, top);
  context.lineTo(left + dx, top + dy);
}
