/** The elements of a player: the picture with what lies over it, the overview, and the bar of buttons. */

import { element } from "./elements.js";
import { iconButton } from "./icons.js";
import { settingsPanel } from "./panel.js";

const NOWHERE = { "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": 0 };

/** Build the parts by their names; `on` is what the buttons do, and gives and sets the player's colours and channel. */
export function buildParts(on) {
  const unpressed = { "aria-pressed": "false" };
  const parts = {
    canvas: element("canvas", { className: "mel-canvas", "aria-hidden": "true" }),
    surface: element("div", { className: "mel-surface", tabIndex: 0, role: "slider", ...NOWHERE }),
    looped: element("div", { className: "mel-looped", hidden: true }),
    cursor: element("div", { className: "mel-cursor" }),
    marks: element("div", { className: "mel-marks" }),
    draft: element("div", { className: "mel-draft", hidden: true }),
    readout: element("div", { className: "mel-readout", "aria-hidden": "true", hidden: true }),
    message: element("p", { className: "mel-message", role: "status" }),
    overview: element("canvas", { className: "mel-overview", "aria-hidden": "true", hidden: true }),
    clock: element("span", { className: "mel-clock" }),
    names: element("div", { className: "mel-names", role: "group", "aria-label": "What is heard (X switches)" }),
    play: iconButton("play", "Play", () => on.toggle()),
    loop: iconButton("loop", "Loop", () => on.toggleLoop(), unpressed),
    brush: iconButton("brush", "Brush: drag to mark a region", () => on.toggleBrush(), unpressed),
    whole: iconButton("whole", "Show everything", () => on.showAll()),
  };
  const { canvas, surface, looped, cursor, marks, draft, readout, message, clock, names, play, loop, brush } = parts;
  parts.plot = element("div", { className: "mel-plot" }, surface, marks, looped, draft, cursor, readout);
  parts.stage = element("div", { className: "mel-stage" }, canvas, parts.plot, message);
  parts.bar = element(
    "div",
    { className: "mel-bar", role: "toolbar", "aria-label": "Player" },
    [play, clock, names, element("span", { className: "mel-space" }), brush, loop],
    iconButton("farther", "Zoom out", () => on.zoom(2)),
    iconButton("closer", "Zoom in", () => on.zoom(0.5)),
    [parts.whole, ...settingsPanel(on)],
  );
  return parts;
}
