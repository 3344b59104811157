/** The tab Scores: evaluations and comparisons side by side, and their reports. */

import { element } from "../elements.js";
import { iconButton } from "../icons.js";
import { ask, post } from "./api.js";
import { short } from "./chart.js";
import { button, empty } from "./controls.js";
import { attempt } from "./notices.js";

/** The tab. */
export class Scores {
  #store;
  #parts;
  #chosen = new Set();

  constructor(store) {
    this.#store = store;
    this.node = element("div", { className: "scores" });
  }

  async open() {
    this.#parts = {
      table: element("div", { className: "scroll" }),
      report: element("section", { className: "report", hidden: true, "aria-label": "Report" }),
    };
    this.#parts.compare = button("Compare those chosen", (event, made) => this.#compare(made), {
      kind: "primary",
      disabled: true,
    });
    this.node.append(
      element("div", { className: "panel row" }, element("h2", { textContent: "Evaluations" }), this.#parts.compare),
      this.#parts.table,
      this.#parts.report,
    );
    this.#store.addEventListener("artefacts", () => this.#read());
    this.#store.addEventListener(
      "job",
      ({ detail }) => ["evaluate", "compare"].includes(detail.stage) && detail.state === "finished" && this.#read(),
    );
    await this.#read();
  }

  async #read() {
    const found = await attempt(() => ask("/evaluations"));
    if (!found) return;
    const { evaluations } = found;
    if (!evaluations.length) {
      const command = element("pre", {
        textContent: "sdxl-mel evaluate --generated SONGS --reference data/my-music --out scores/first",
      });
      return this.#parts.table.replaceChildren(
        empty(
          "No evaluation below this folder",
          "Measure some results; the numbers and their report appear here.",
          command,
        ),
      );
    }
    const scored = evaluations.filter(({ kind }) => kind === "evaluation");
    const metrics = [...new Set(scored.flatMap((each) => Object.keys(each.metrics ?? {})))];
    const head = element(
      "tr",
      {},
      element("th", { textContent: "metric" }),
      ...evaluations.map((each) => this.#head(each)),
    );
    const rows = metrics.map((name) =>
      element(
        "tr",
        {},
        element("th", { scope: "row", textContent: name }),
        ...evaluations.map((each) => element("td", { textContent: valueText(each.metrics?.[name]) })),
      ),
    );
    this.#parts.table.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
  }

  #head({ id, name, kind, report }) {
    const cell = element("th", { scope: "col" });
    if (kind === "evaluation") {
      const tick = element("input", {
        type: "checkbox",
        checked: this.#chosen.has(id),
        "aria-label": `Choose ${name}`,
      });
      tick.addEventListener("change", () => {
        this.#chosen[tick.checked ? "add" : "delete"](id);
        this.#parts.compare.disabled = this.#chosen.size < 2;
      });
      cell.append(element("label", {}, tick, ` ${name}`));
    } else cell.append(name);
    if (report) cell.append(button("Report", () => this.#show(name, report), { kind: "quiet" }));
    return cell;
  }

  #show(name, url) {
    const { report } = this.#parts;
    const frame = element("iframe", { src: url, title: `Report of ${name}` });
    frame.setAttribute("sandbox", "allow-scripts");
    report.hidden = false;
    report.replaceChildren(
      element(
        "header",
        {},
        element("h3", { textContent: name }),
        iconButton("close", "Close the report", () => (report.hidden = true)),
      ),
      frame,
    );
    report.scrollIntoView({ block: "start" });
  }

  async #compare(made) {
    const settings = { evaluations: [...this.#chosen].map((id) => `id:${id}`) };
    const job = await attempt(() => post("/jobs", { stage: "compare", settings }), made);
    if (job) this.#store.take(job);
  }
}

function valueText(metric) {
  if (metric === undefined || metric === null) return "";
  if (typeof metric === "number") return short(metric);
  const bounds = typeof metric.low === "number" ? ` (${short(metric.low)} to ${short(metric.high)})` : "";
  return `${short(metric.value)}${bounds}`;
}
