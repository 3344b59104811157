/** The variations of a job as a grid: a cell for every combination of what was varied. */

import { element } from "../elements.js";
import { ResultCard, reportLink } from "./card.js";

/** The settings of `vary` that are axes, in the order in which it numbers its results, and their words. */
const AXES = [
  ["strengths", "strength"],
  ["scales", "LoRA scale"],
  ["guidances", "guidance"],
  ["seeds", "seed"],
];

/** The names of the settings that are axes. */
export const AXIS_NAMES = AXES.map(([name]) => name);

/** The cells of the grid that `settings` of `vary` ask for: [{name: "0001", values: {seeds: 3, ...}}], row by row. */
export function cellsOf(settings) {
  const given = { ...settings, seeds: settings.seeds ?? [0] };
  let cells = [{}];
  for (const name of AXIS_NAMES.filter((each) => given[each]?.length))
    cells = cells.flatMap((values) => given[name].map((value) => ({ ...values, [name]: value })));
  const numbered = cells.map((values, number) => ({ name: String(number + 1).padStart(4, "0"), values }));
  const across = longestAxis(given);
  const place = ({ values }) => [
    ...AXIS_NAMES.filter((name) => name !== across && given[name]?.length).map((name) =>
      given[name].indexOf(values[name]),
    ),
    given[across].indexOf(values[across]),
  ];
  return numbered.sort((one, other) => firstDifference(place(one), place(other)));
}

function longestAxis(settings) {
  return AXIS_NAMES.reduce((longest, name) =>
    (settings[name]?.length ?? 0) >= (settings[longest]?.length ?? 0) ? name : longest,
  );
}

function firstDifference(one, other) {
  const at = one.findIndex((value, index) => value !== other[index]);
  return at < 0 ? 0 : one[at] - other[at];
}

/** The settings with which `generate` or `edit` draws one cell again. */
export function settingsOfCell(settings, { strengths, scales, guidances, seeds }) {
  const { source, ...others } = Object.fromEntries(
    Object.entries(settings).filter(([name]) => !AXIS_NAMES.includes(name)),
  );
  const found = { ...others, seed: seeds };
  if (source) Object.assign(found, { input: source, strength: strengths });
  if (guidances !== undefined) found.guidance = guidances;
  if (scales !== undefined) found.lora = (settings.lora ?? []).map((each) => `${each.match(/^id:[^:]+/)[0]}:${scales}`);
  return found;
}

/** The card of a grid; `on` is that of its cells' cards, given the cell's settings as a job's. */
export class GridCard {
  #store;
  #on;
  #parts;
  #cards = new Map();

  constructor(job, store, on) {
    [this.#store, this.#on] = [store, on];
    const cells = cellsOf(job.settings);
    const across = longestAxis({ ...job.settings, seeds: job.settings.seeds ?? [0] });
    this.#parts = {
      cells: cells.map((cell) => ({ ...cell, node: element("div", { className: "cell" }) })),
      report: reportLink(job, "How far they are from the first"),
    };
    const columns = (job.settings[across] ?? [0]).length;
    const grid = element("div", { className: "cells" }, ...this.#parts.cells.map(({ node }) => node));
    grid.style.setProperty("--columns", columns);
    this.node = element(
      "article",
      { className: "card grid-card", "aria-label": `Variations of ${job.settings.prompt}` },
      element(
        "header",
        {},
        element("h3", { textContent: `Variations of “${job.settings.prompt}”` }),
        this.#parts.report,
      ),
      grid,
    );
    this.update(job);
  }

  /** Show the cells that are finished. */
  update(job) {
    this.#parts.report.hidden = job.state !== "finished";
    for (const { name, values, node } of this.#parts.cells) {
      const result = job.results.find((each) => each.name === name);
      const words = AXES.filter(([axis]) => values[axis] !== undefined).map(([axis, word]) => `${word} ${values[axis]}`);
      if (!result) {
        node.replaceChildren(element("p", { className: "meta", textContent: `${words.join(", ")}: not drawn yet` }));
        continue;
      }
      const drawn = { ...job, settings: settingsOfCell(job.settings, values) };
      if (!this.#cards.has(name)) {
        this.#cards.set(name, new ResultCard(drawn, result, this.#store, this.#on, words.join(", ")));
        node.replaceChildren(this.#cards.get(name).node);
      }
      this.#cards.get(name).update(drawn, result, []);
    }
  }
}
