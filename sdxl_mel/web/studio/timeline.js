/** The tab Timeline: a long piece as blocks of prompts on a ruler. */

import { timeText, timeTicks } from "../axes.js";
import { element, remember, remembered } from "../elements.js";
import { iconButton } from "../icons.js";
import { ask, post } from "./api.js";
import { ResultCard, copied } from "./card.js";
import { button, empty, labelled, select } from "./controls.js";
import { editResult } from "./edits.js";
import { SettingsForm } from "./form.js";
import { placeInOrder } from "./make.js";
import { attempt, say } from "./notices.js";
import { RunningCard } from "./running.js";

const DRAFT = "draft-timeline";
const SHORTEST_BLOCK = 1;
const SMALL_STEP = 0.5;
const OWN = [
  "prompt",
  "prompts",
  "prompt_to",
  "base",
  "lora",
  "lora_scale",
  "seed",
  "seconds",
  "schedule",
  "init",
  "mode",
  "num",
];

/** The schedule as the command line takes it: "0:00 solo piano | 0:30 drums enter". */
export function scheduleText(blocks) {
  return blocks.map(({ start, prompt }) => `${clock(start)} ${prompt.replaceAll("|", " ").trim()}`).join(" | ");
}

function clock(seconds) {
  const rest = (seconds % 60).toFixed(seconds % 1 ? 1 : 0);
  return `${Math.floor(seconds / 60)}:${rest.padStart(rest.includes(".") ? 4 : 2, "0")}`;
}

/** The tab. */
export class Timeline {
  #store;
  #form;
  #parts;
  #blocks = [];
  #cards = new Map();

  constructor(store) {
    this.#store = store;
    this.node = element("div", { className: "timeline" });
  }

  /** Build the tab once its settings are known. */
  async open() {
    const { schema } = await ask("/stages/generate");
    this.#form = new SettingsForm(schema, { store: this.#store, left: OWN });
    const draft = JSON.parse(remembered(DRAFT, "{}"));
    this.#blocks = draft.blocks ?? [
      { start: 0, prompt: "solo piano, slow" },
      { start: 8, prompt: "violin joins the piano" },
    ];
    this.#build(draft);
    this.#showBlocks();
    for (const name of ["job", "jobs", "removed"]) this.#store.addEventListener(name, () => this.#showResults());
    this.#store.addEventListener("step", ({ detail }) => this.#cards.get(detail.job)?.step(detail));
    this.#store.addEventListener("block", ({ detail }) => this.#cards.get(detail.job)?.block(detail));
    this.#showResults();
  }

  #build(draft) {
    const seconds = element("input", { type: "number", min: 4, step: "any", value: draft.seconds ?? 16 });
    const seed = element("input", { type: "number", min: 0, step: 1, value: draft.seed ?? 0 });
    const base = select([["mini", "mini (comes with the package)"]], "mini");
    const lora = select([["", "none"]], "");
    const mode = select(
      [
        ["joint", "joint: all at once"],
        ["extend", "extend: one after the other, heard meanwhile"],
        ["independent", "independent tiles"],
      ],
      draft.mode ?? "joint",
    );
    this.#parts = {
      seconds,
      seed,
      base,
      lora,
      mode,
      ruler: element("div", { className: "ruler", "aria-hidden": "true" }),
      row: element("div", { className: "blocks" }),
      list: element("ol", { className: "block-list" }),
      results: element("div", { className: "results wide" }),
    };
    seconds.addEventListener("input", () => this.#showBlocks());
    const make = button("Make this piece", (event, made) => this.#make(made), { kind: "primary", name: "play" });
    const panel = element(
      "section",
      { className: "panel", "aria-label": "The piece" },
      element(
        "div",
        { className: "inline" },
        labelled("Length, s", seconds),
        labelled("Seed", seed),
        labelled("Base", base),
        labelled("LoRA", lora),
        labelled("How", mode),
      ),
      element("div", { className: "track" }, this.#parts.ruler, this.#parts.row),
      this.#parts.list,
      element(
        "div",
        { className: "actions" },
        button("Add a block", () => this.#add(), { name: "plus", kind: "quiet" }),
        button("Copy the command", () => this.#copyCommand(), { name: "copy", kind: "quiet" }),
        make,
      ),
      this.#form.all,
    );
    panel.addEventListener("input", () => this.#keep());
    this.node.append(panel, this.#parts.results);
    this.#readModels();
    this.#store.addEventListener("artefacts", () => this.#readModels());
  }

  async #readModels() {
    const fill = (list, pairs) => {
      const chosen = list.value;
      list.replaceChildren(...pairs.map(([value, textContent]) => element("option", { value, textContent })));
      if (pairs.some(([value]) => value === chosen)) list.value = chosen;
    };
    const pairs = async (kind) => (await this.#store.artefacts(kind)).map((each) => [`id:${each.id}`, each.name]);
    fill(this.#parts.base, [["mini", "mini (comes with the package)"], ...(await pairs("base"))]);
    fill(this.#parts.lora, [["", "none"], ...(await pairs("lora"))]);
  }

  get settings() {
    const { seconds, seed, base, lora, mode } = this.#parts;
    const own = {
      base: base.value,
      seed: Number(seed.value),
      seconds: Number(seconds.value),
      schedule: scheduleText(this.#blocks),
      mode: mode.value,
    };
    if (lora.value) own.lora = [lora.value];
    return { ...this.#form.settings, ...own };
  }

  #keep() {
    const { seconds, seed, mode } = this.#parts;
    remember(
      DRAFT,
      JSON.stringify({ blocks: this.#blocks, seconds: seconds.value, seed: seed.value, mode: mode.value }),
    );
  }

  async #make(made) {
    if (this.#blocks.some(({ prompt }) => !prompt.trim())) return say("Every block needs a prompt.");
    const job = await attempt(() => post("/jobs", { stage: "generate", settings: this.settings }), made);
    if (job) this.#store.take(job);
  }

  async #copyCommand() {
    const checked = await attempt(() => post("/stages/generate/check", { settings: this.settings }));
    if (checked) copied(checked.command);
  }

  #add() {
    const total = Number(this.#parts.seconds.value);
    const last = this.#blocks.at(-1)?.start ?? 0;
    this.#blocks.push({ start: Math.round((last + total) / 2), prompt: "" });
    this.#showBlocks();
    this.#parts.list.lastElementChild.querySelector("input[type=text]").focus();
  }

  // --- blocks ---

  #showBlocks() {
    const { list } = this.#parts;
    this.#blocks.sort((one, other) => one.start - other.start);
    if (this.#blocks.length) this.#blocks[0].start = 0;
    list.replaceChildren(...this.#blocks.map((block, number) => this.#line(block, number)));
    this.#draw();
    this.#keep();
  }

  #line(block, number) {
    const start = element("input", {
      type: "number",
      min: 0,
      step: "any",
      value: block.start,
      "aria-label": `Start of block ${number + 1} in seconds`,
      disabled: number === 0,
    });
    start.addEventListener("change", () => {
      block.start = Number(start.value);
      this.#showBlocks();
    });
    const prompt = element("input", {
      type: "text",
      value: block.prompt,
      placeholder: "what plays from here on",
      "aria-label": `Prompt of block ${number + 1}`,
    });
    prompt.addEventListener("input", () => {
      block.prompt = prompt.value;
      this.#draw();
    });
    const remove = iconButton("close", `Remove block ${number + 1}`, () => {
      this.#blocks = this.#blocks.filter((each) => each !== block);
      this.#showBlocks();
    });
    remove.disabled = this.#blocks.length === 1;
    return element("li", {}, start, prompt, remove);
  }

  #draw() {
    const { ruler, row, seconds } = this.#parts;
    const total = Math.max(Number(seconds.value) || 1, 1);
    ruler.replaceChildren(
      ...timeTicks(0, total * 0.99, 900, 90).map(({ at, text }) => {
        const tick = element("span", { textContent: text });
        tick.style.left = `${(at / total) * 100}%`;
        return tick;
      }),
    );
    row.replaceChildren(
      ...this.#blocks.map((block, number) => {
        const end = this.#blocks[number + 1]?.start ?? total;
        const box = element(
          "div",
          { className: `block block-${number % 5}`, title: block.prompt },
          element("span", { textContent: block.prompt || "no prompt yet" }),
        );
        box.style.left = `${(block.start / total) * 100}%`;
        box.style.width = `${(Math.max(end - block.start, 0) / total) * 100}%`;
        if (number) box.append(this.#border(block, number, total));
        return box;
      }),
    );
  }

  /** The left border of a block, which is dragged, or moved by the arrow keys. */
  #border(block, number, total) {
    const limits = () => [
      this.#blocks[number - 1].start + SHORTEST_BLOCK,
      (this.#blocks[number + 1]?.start ?? total) - SHORTEST_BLOCK,
    ];
    const border = element("div", {
      className: "border",
      tabIndex: 0,
      role: "slider",
      "aria-label": `Start of block ${number + 1}`,
      "aria-valuemin": 0,
      "aria-valuemax": total,
      "aria-valuenow": block.start,
      "aria-valuetext": `${timeText(block.start, 1)} seconds`,
    });
    const move = (to) => {
      const [least, most] = limits();
      block.start = Math.min(Math.max(Math.round(to * 10) / 10, least), most);
      this.#draw();
      this.#keep();
      this.#parts.list.children[number].querySelector("input").value = block.start;
    };
    border.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -SMALL_STEP, ArrowRight: SMALL_STEP }[event.key];
      if (!by) return;
      event.preventDefault();
      move(block.start + by);
      this.#parts.row.children[number].querySelector(".border").focus();
    });
    border.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      const box = this.#parts.row.getBoundingClientRect();
      const follow = (moved) => move(((moved.clientX - box.left) / box.width) * total);
      const stop = () => {
        removeEventListener("pointermove", follow);
        removeEventListener("pointerup", stop);
      };
      addEventListener("pointermove", follow);
      addEventListener("pointerup", stop);
    });
    return border;
  }

  // --- results ---

  #showResults() {
    const { results } = this.#parts;
    const nodes = [];
    const edit = (from, which, change) => attempt(() => editResult(this.#store, from, which, change));
    for (const job of this.#store.newest("generate", "edit").filter((each) => this.#store.isPiece(each))) {
      if (job.state !== "finished")
        nodes.push(
          this.#card(
            job.id,
            () => new RunningCard(job, this.#store),
            (card) => card.update(job),
          ),
        );
      for (const result of job.results) {
        const make = () => new ResultCard(job, result, this.#store, { reuse: (from) => this.#reuse(from), edit });
        const heard = this.#cards.get(job.id)?.heard;
        nodes.push(
          this.#card(`${job.id}/${result.name}`, make, (card) => {
            card.update(job, result, []);
            if (heard?.result === result.name) card.takeOver(heard.stream);
          }),
        );
      }
    }
    if (!nodes.length)
      nodes.push(
        empty(
          "No long piece yet",
          "Give the blocks their prompts and press Make this piece; where one tile meets the next is marked.",
        ),
      );
    placeInOrder(results, nodes);
  }

  #card(key, make, update) {
    if (!this.#cards.has(key)) this.#cards.set(key, make());
    const card = this.#cards.get(key);
    update(card);
    return card.node;
  }

  #reuse({ settings }) {
    const { seconds, seed, mode } = this.#parts;
    this.#blocks = settings.schedule.split("|").map((each) => {
      const [, minutes, rest, prompt] = each.trim().match(/^(\d+):([\d.]+)\s*(.*)$/) ?? [null, 0, 0, each.trim()];
      return { start: Number(minutes) * 60 + Number(rest), prompt };
    });
    [seconds.value, seed.value, mode.value] = [settings.seconds, settings.seed ?? 0, settings.mode ?? "joint"];
    this.#form.settings = settings;
    this.#showBlocks();
  }
}
