/** Line charts as SVG, drawn anew while a run goes on; their last numbers are also said in words. */

import { element } from "../elements.js";

const [WIDTH, HEIGHT] = [520, 190];
const [LEFT, RIGHT, TOP, BOTTOM] = [52, 12, 10, 26];
const NAMESPACE = "http://www.w3.org/2000/svg";

/** A chart of `series`, [{name, points: [[x, y], ...]}]; `logarithmic` is the y axis's scale. */
export function chart(title, series, { logarithmic = false, xLabel = "step" } = {}) {
  const drawn = series.filter(({ points }) => points.length);
  const legend = element(
    "p",
    { className: "legend" },
    ...drawn.map(({ name }, index) => element("span", { className: `series-${index % 6}`, textContent: name })),
  );
  const last = drawn.map(({ name, points }) => `${name} ${short(points.at(-1)[1])}`).join(", ");
  const figure = element("figure", { className: "chart" }, element("figcaption", { textContent: title }));
  if (!drawn.length) {
    figure.append(element("p", { className: "meta", textContent: "nothing yet" }));
    return figure;
  }
  figure.append(svgOf(drawn, logarithmic, `${title}: ${last} at ${xLabel} ${drawn[0].points.at(-1)[0]}`), legend);
  return figure;
}

/** Values smoothed as the trainer smooths its own curves: an exponential mean with its start corrected. */
export function smoothed(points, share = 0.95) {
  let mean = 0;
  return points.map(([x, y], index) => {
    mean = share * mean + (1 - share) * y;
    return [x, mean / (1 - share ** (index + 1))];
  });
}

function svgOf(series, logarithmic, label) {
  const scale = logarithmic ? (y) => Math.log10(Math.max(y, 1e-9)) : (y) => y;
  const all = series.flatMap(({ points }) => points);
  const [x0, x1] = range(all.map(([x]) => x));
  const [y0, y1] = range(all.map(([, y]) => scale(y)));
  const x = (value) => LEFT + ((value - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((scale(value) - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  for (let k = 0; k <= 3; k++) {
    const level = y0 + (k / 3) * (y1 - y0);
    const at = HEIGHT - BOTTOM - (k / 3) * (HEIGHT - TOP - BOTTOM);
    root.append(
      svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at, class: "grid" }),
      text(LEFT - 6, at + 4, short(logarithmic ? 10 ** level : level), "end"),
    );
  }
  for (let k = 0; k <= 4; k++) {
    const value = x0 + (k / 4) * (x1 - x0);
    root.append(text(x(value), HEIGHT - 8, String(Math.round(value)), k === 4 ? "end" : k ? "middle" : "start"));
  }
  series.forEach(({ points }, index) => {
    const path = points.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" ");
    root.append(svg("polyline", { points: path, class: `line series-${index % 6}` }));
    if (points.length < 30)
      for (const [px, py] of points)
        root.append(svg("circle", { cx: x(px), cy: y(py), r: 2.2, class: `dot series-${index % 6}` }));
  });
  return root;
}

function range(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const apart = high - low > 1e-9 * Math.max(Math.abs(low), Math.abs(high));
  return apart ? [low, high] : [low - Math.abs(low) * 0.1 - 1e-6, high + Math.abs(high) * 0.1 + 1e-6];
}

function text(x, y, content, anchor) {
  const made = svg("text", { x, y, "text-anchor": anchor });
  made.textContent = content;
  return made;
}

function svg(tag, attributes) {
  const made = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** A number in few characters. */
export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}
