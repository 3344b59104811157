/** Regions in seconds and hertz on a picture: boxes that are moved and resized by pointer and by keys. */

import { hertzText, timeText } from "./axes.js";
import { place } from "./drawing.js";
import { element } from "./elements.js";

const EDGE_PIXELS = 8;
const MOVE_SECONDS = 0.1;
const SEMITONE = 2 ** (1 / 12);
const SHORTEST_REGION = 0.02;

/** The regions of one picture; `on` has boxOf(region), at(x, y) -> {time, hz}, changed(list), seconds(). */
export class Regions {
  #plot;
  #on;
  #regions = [];
  #boxes = [];

  constructor(plot, on) {
    this.#plot = plot;
    this.#on = on;
  }

  get list() {
    return this.#regions.map((region) => ({ ...region }));
  }

  set list(regions) {
    this.#regions = regions.map((region) => ({ ...region }));
    this.#boxes.forEach((box) => box.remove());
    this.#boxes = this.#regions.map((region) => this.#box(region));
    this.draw();
  }

  /** Add a region; it has the focus, so that keys move it on. */
  add(region) {
    this.list = [...this.#regions, region];
    this.#boxes.at(-1).focus({ preventScroll: true });
    this.#on.changed(this.list);
  }

  /** Put the boxes where their regions are now. */
  draw() {
    this.#regions.forEach((region, number) => {
      const box = this.#boxes[number];
      const area = this.#on.boxOf(region);
      box.hidden = area.width <= 0 || area.height <= 0;
      place(box, area);
      box.textContent = String(number + 1);
      const times = `${timeText(region.start)} to ${timeText(region.end)} s`;
      const range = `${times}, ${hertzText(region.low)} to ${hertzText(region.high)} Hz`;
      box.setAttribute("aria-label", `Region ${number + 1}: ${range}`);
      box.title = `${range}. Arrows move it, with Shift they resize it; Delete removes it.`;
    });
  }

  #box(region) {
    const box = element("button", { type: "button", className: "mel-region" });
    box.addEventListener("keydown", (event) => this.#key(event, region));
    this.#drags(box, region);
    this.#plot.append(box);
    return box;
  }

  #change(region, wanted) {
    const start = Math.max(wanted.start, 0);
    const end = Math.min(wanted.end, this.#on.seconds());
    if (end - start < SHORTEST_REGION || wanted.high <= wanted.low) return;
    Object.assign(region, { start, end, low: Math.max(wanted.low, 0), high: wanted.high });
    this.draw();
    this.#on.changed(this.list);
  }

  #key(event, region) {
    if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      const number = this.#regions.indexOf(region);
      this.list = this.#regions.filter((each) => each !== region);
      (this.#boxes[Math.min(number, this.#boxes.length - 1)] ?? this.#plot.querySelector("[tabindex]"))?.focus();
      this.#on.changed(this.list);
      return;
    }
    const [along, up] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [
      0, 0,
    ];
    if (!along && !up) return;
    event.preventDefault();
    const still = event.shiftKey ? 0 : 1;
    this.#change(region, {
      start: region.start + still * along * MOVE_SECONDS,
      end: region.end + along * MOVE_SECONDS,
      low: region.low * SEMITONE ** (still * up),
      high: region.high * SEMITONE ** up,
    });
  }

  #drags(box, region) {
    let held = null;
    box.addEventListener("pointerdown", (event) => {
      const size = box.getBoundingClientRect();
      const near = (distance) => Math.abs(distance) < EDGE_PIXELS;
      const edges = {
        start: near(event.clientX - size.left),
        end: near(event.clientX - size.right),
        high: near(event.clientY - size.top),
        low: near(event.clientY - size.bottom),
      };
      const inside = !Object.values(edges).some(Boolean);
      held = {
        edges: inside ? { start: true, end: true, low: true, high: true } : edges,
        from: this.#at(event),
        region: { ...region },
      };
      box.setPointerCapture(event.pointerId);
    });
    box.addEventListener("pointermove", (event) => {
      if (!held) return;
      const [to, { edges, from, region: before }] = [this.#at(event), held];
      this.#change(region, {
        start: before.start + (edges.start ? to.time - from.time : 0),
        end: before.end + (edges.end ? to.time - from.time : 0),
        low: before.low * (edges.low ? to.hz / from.hz : 1),
        high: before.high * (edges.high ? to.hz / from.hz : 1),
      });
    });
    for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => (held = null));
  }

  #at(event) {
    const box = this.#plot.getBoundingClientRect();
    return this.#on.at(event.clientX - box.left, event.clientY - box.top);
  }
}
