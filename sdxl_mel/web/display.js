/** What a player shows of its picture: the part in sight between axes, and what lies over it. */

import { noteName, timeText } from "./axes.js";
import { chosenColours, pixels } from "./colours.js";
import { drawAxes, drawOverview, place, sized } from "./drawing.js";
import { element } from "./elements.js";
import { boxOf, placeAt } from "./places.js";
import { isZoomed } from "./view.js";

const COMPACT_WIDTH = 420;
const NARROW_WIDTH = 600;

/** Draws into the parts of a player; `of` has what is shown: picture(), channel(), view(), seconds(), several(). */
export class Display {
  #player;
  #parts;
  #of;
  #drawn = [];

  constructor(player, parts, of) {
    [this.#player, this.#parts, this.#of] = [player, parts, of];
  }

  /** What lies at a pixel of the plot: {time, height, hz}. */
  placeOf(x, y) {
    return placeAt(x, y, this.#of.view(), this.#size(), this.#of.seconds(), this.#of.picture()?.spec);
  }

  /** The rectangle of a range in pixels of the plot. */
  boxOf(range) {
    return boxOf(range, this.#of.view(), this.#size(), this.#of.picture()?.spec);
  }

  /** Say what lies at a pixel of the plot; x null = nothing. */
  point(x, y) {
    const { readout } = this.#parts;
    const picture = this.#of.picture();
    readout.hidden = x === null || !picture;
    if (readout.hidden) return;
    const { time, height, hz } = this.placeOf(x, y);
    const level = picture.levelAt(time, height, this.#of.channel());
    const note = noteName(Math.max(hz, 8), true);
    readout.textContent = `${timeText(time)} s · ${Math.round(hz)} Hz · ${note} · ${level} of 255`;
  }

  showLoop(range) {
    this.#parts.looped.hidden = !range;
    if (range) place(this.#parts.looped, this.boxOf(range));
  }

  /** Lay the draft of a region over the plot, or nothing for null. */
  showDraft(region) {
    this.#parts.draft.hidden = !region;
    if (region) place(this.#parts.draft, this.boxOf(region));
  }

  /** Draw the picture, its axes and its overview, where anything of them is another than before. */
  drawPicture() {
    const { canvas, overview, whole: fit, plot } = this.#parts;
    const [player, picture, view, colours] = [this.#player, this.#of.picture(), this.#of.view(), chosenColours()];
    const stage = canvas.parentElement;
    const [width, height, ratio] = [stage.clientWidth, stage.clientHeight, devicePixelRatio];
    const compact = width < COMPACT_WIDTH;
    player.toggleAttribute("data-compact", compact);
    player.toggleAttribute("data-narrow", width < NARROW_WIDTH && this.#of.several());
    const style = getComputedStyle(player);
    const ink = style.getPropertyValue("--mel-soft").trim() || style.color;
    const channel = this.#of.channel();
    const drawn = [picture, width, height, ratio, ink, channel, colours, ...Object.values(view)];
    if (!width || drawn.every((each, index) => each === this.#drawn[index])) return; // Only the cursor has moved.
    this.#drawn = drawn;
    const context = sized(canvas, width, height, ratio);
    const area = { x: plot.offsetLeft, y: plot.offsetTop, width: plot.clientWidth, height: plot.clientHeight };
    context.clearRect(0, 0, width, height);
    if (!picture) return;
    context.save();
    context.beginPath();
    context.rect(area.x, area.y, area.width, area.height);
    context.clip();
    picture.draw(context, view, area, channel, colours, pixels(colours));
    context.restore();
    drawAxes(context, area, view, picture.spec, { ink, compact, family: style.fontFamily });
    const zoomed = isZoomed(view, this.#of.seconds());
    fit.disabled = !zoomed && view.high - view.low > 1 - 1e-6;
    overview.hidden = !zoomed;
    if (zoomed) drawOverview(overview, picture, view, channel, colours, ratio);
    this.#drawMarks();
  }

  #drawMarks() {
    const ranges = JSON.parse(this.#player.getAttribute("marks") ?? "[]");
    const view = this.#of.view();
    this.#parts.marks.replaceChildren(
      ...ranges.map(([start, end]) => {
        const mark = element("div", { className: "mel-mark", title: `a join at ${timeText((start + end) / 2)} s` });
        const inside = end > view.start && start < view.end;
        mark.hidden = !inside;
        if (inside) place(mark, this.boxOf({ start, end }));
        return mark;
      }),
    );
  }

  drawCursor(time) {
    const { cursor, clock, surface } = this.#parts;
    const [{ start, end }, seconds] = [this.#of.view(), this.#of.seconds()];
    const inside = time >= start && time <= end;
    cursor.hidden = !inside;
    if (inside) cursor.style.transform = `translateX(${((time - start) / (end - start)) * this.#size().width}px)`;
    const shown = `${timeText(time, 1)} / ${timeText(seconds, 1)} s`;
    if (clock.textContent === shown) return;
    clock.textContent = shown;
    surface.setAttribute("aria-valuemax", seconds.toFixed(2));
    surface.setAttribute("aria-valuenow", time.toFixed(2));
    surface.setAttribute("aria-valuetext", `${timeText(time, 1)} of ${timeText(seconds, 1)} seconds`);
  }

  #size() {
    const { clientWidth, clientHeight } = this.#parts.plot;
    return { width: Math.max(clientWidth, 1), height: Math.max(clientHeight, 1) };
  }
}
