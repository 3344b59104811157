/** The tab Make: a prompt becomes music; results are cards in a history. */

import { element, remember, remembered } from "../elements.js";
import { icon, iconButton } from "../icons.js";
import { ask, post, query } from "./api.js";
import { ResultCard, copied } from "./card.js";
import { button, empty, labelled, select } from "./controls.js";
import { editResult, schemaOf, sharedSettings } from "./edits.js";
import { SettingsForm } from "./form.js";
import { AXIS_NAMES, GridCard } from "./grid.js";
import { attempt, say } from "./notices.js";
import { RunningCard } from "./running.js";

const LEADING = ["num", "seconds", "steps", "guidance", "negative_prompt"];
const OWN = ["prompt", "base", "lora", "lora_scale", "seed", "ab"];
const USUAL_STRENGTH = 0.6;
const MOST_SEED = 2 ** 31;
const DRAFT = "draft-make";
const GRID_DRAFT = "draft-grid";
const EXAMPLE = { prompt: "solo violin with soft piano, slow" };

/** The tab. */
export class Make {
  #store;
  #form;
  #axes;
  #cards = new Map();
  #running = new Map();
  #parts;
  #filter = "all";
  #steps = new Map();

  constructor(store) {
    this.#store = store;
    this.node = element("div", { className: "split" });
  }

  /** Build the tab once its settings are known. */
  async open() {
    this.#form = new SettingsForm(await schemaOf("generate"), { store: this.#store, leading: LEADING, left: OWN });
    const varied = await schemaOf("vary");
    const left = Object.keys(varied.properties).filter((name) => !AXIS_NAMES.includes(name));
    this.#axes = new SettingsForm(varied, { store: this.#store, leading: AXIS_NAMES, left });
    this.#build();
    for (const name of ["job", "jobs", "removed"]) this.#store.addEventListener(name, () => this.#show());
    this.#store.addEventListener("step", ({ detail }) => {
      this.#steps.set(detail.job, detail);
      this.#running.get(detail.job)?.step(detail);
    });
    this.#store.addEventListener("block", ({ detail }) => this.#running.get(detail.job)?.block(detail));
    this.#store.addEventListener("artefacts", () => this.#readModels());
    this.#store.addEventListener("lora", () => this.#takeLora());
    await this.#readModels();
    this.#axes.settings = JSON.parse(remembered(GRID_DRAFT, "{}"));
    this.#restore(JSON.parse(remembered(DRAFT, JSON.stringify(EXAMPLE))));
    this.#takeLora();
    this.#show();
  }

  /** The settings as they stand. */
  get settings() {
    const { prompt, base, seed, init, both } = this.#parts;
    const loras = [...this.#parts.loras.querySelectorAll(".lora")].map((row) => {
      const [file, scale] = [row.querySelector("select").value, Number(row.querySelector("input").value)];
      return scale === 1 ? file : `${file}:${scale}`;
    });
    const own = { prompt: prompt.value.trim(), base: base.value, seed: Number(seed.value) };
    if (loras.length) own.lora = loras;
    if (loras.length && both.checked) own.ab = true;
    if (init.dataset.value) own.input = init.dataset.value;
    if (own.input && init.querySelector("input").value) own.strength = Number(init.querySelector("input").value);
    return { ...this.#form.settings, ...own };
  }

  #build() {
    const prompt = element("textarea", { rows: 3, placeholder: EXAMPLE.prompt });
    const seed = element("input", { type: "number", min: 0, step: 1, value: "0" });
    const base = select([["mini", "mini"]], "mini", () => this.#keep());
    this.#parts = {
      prompt,
      base,
      seed,
      loras: element("div", { className: "loras" }),
      both: element("input", { type: "checkbox" }),
      init: element("div", { className: "init", hidden: true }),
      lock: iconButton("unlocked", "Keep this seed", () => this.#toggleLock(), { "aria-pressed": "false" }),
      results: element("div", { className: "results", "aria-live": "off" }),
      make: button("Make music", (event, made) => this.#make({}, made), { kind: "primary wide", name: "play" }),
    };
    const dice = iconButton("dice", "Another seed", () => this.#roll());
    const seeds = labelled("Seed", seed, "the same seed and settings make the same sound");
    seed.after(dice, this.#parts.lock);
    seeds.classList.add("seeds");
    const both = labelled("Without them, too", this.#parts.both, "every result twice, to switch between with X");
    both.classList.add("ticked", "both");
    const addLora = button("Add a LoRA", () => this.#addLora(), { name: "plus", kind: "quiet" });
    const form = element(
      "form",
      { className: "panel", "aria-label": "What to make" },
      labelled("Prompt", prompt, "instruments, style, tempo, mood"),
      this.#parts.make,
      labelled("Base", base, "the model that draws"),
      this.#parts.loras,
      addLora,
      both,
      this.#parts.init,
      this.#upload(),
      seeds,
      this.#form.common,
      this.#gridForm(),
      this.#form.all,
      button("Copy the command", () => this.#copyCommand(), { name: "copy", kind: "quiet" }),
    );
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => this.#keep());
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#make({}, this.#parts.make);
    });
    const filter = (value, text) =>
      element("button", {
        type: "button",
        textContent: text,
        "aria-pressed": String(value === this.#filter),
        onclick: (event) => this.#filterBy(value, event.target),
      });
    this.#parts.more = button("Show older", () => attempt(() => this.#store.readJobs(true)), { kind: "quiet" });
    const history = element(
      "section",
      { className: "history", "aria-label": "Results" },
      element(
        "div",
        { className: "history-head" },
        element("h2", { textContent: "Results" }),
        element(
          "div",
          { className: "mel-names", role: "group", "aria-label": "Which results" },
          filter("all", "All"),
          filter("starred", "Starred"),
        ),
      ),
      this.#parts.results,
      this.#parts.more,
    );
    this.node.append(form, history);
  }

  /** What is varied, and the button that draws every combination. */
  #gridForm() {
    const draw = button("Draw the grid", (event, made) => this.#makeGrid(made), { name: "vary" });
    return element(
      "details",
      { className: "all-settings" },
      element("summary", { textContent: "Vary: a grid of combinations" }),
      this.#axes.common,
      element("div", {}, draw),
    );
  }

  async #makeGrid(made) {
    const { input, strength = USUAL_STRENGTH, seed, ...settings } = this.settings;
    const asked = { ...(await sharedSettings("vary", settings)), ...this.#axes.settings };
    asked.seeds ??= [seed];
    if (input) asked.source = input;
    if (input) asked.strengths ??= [strength];
    await this.#make({ asked: { stage: "vary", settings: asked }, quiet: true }, made);
  }

  /** A button that takes a sound or a picture from this machine to start from. */
  #upload() {
    const input = element("input", { type: "file", accept: "audio/*,image/png", hidden: true });
    input.addEventListener("change", () => {
      const [file] = input.files;
      input.value = "";
      if (file) attempt(() => this.#take(file), opener);
    });
    const opener = button("Start from a sound", () => input.click(), { name: "plus", kind: "quiet" });
    return element("div", {}, opener, input);
  }

  async #take(file) {
    const most = this.#store.limits?.upload_bytes ?? Infinity;
    if (file.size > most) throw new Error(`${file.name} is larger than ${Math.floor(most / 2 ** 20)} MB.`);
    const path = query("/uploads", { name: file.name });
    const { id, name } = await ask(path, { method: "POST", body: file, type: "application/octet-stream" });
    this.#startFrom(`id:${id}`, name);
    this.#keep();
  }

  async #readModels() {
    const bases = await this.#store.artefacts("base");
    const { base, loras } = this.#parts;
    const chosen = base.value;
    const pairs = [["mini", "mini (comes with the package)"], ...bases.map((each) => [`id:${each.id}`, each.name])];
    base.replaceChildren(...pairs.map(([value, textContent]) => element("option", { value, textContent })));
    base.value = chosen || "mini";
    this.#loras = await this.#store.artefacts("lora");
    for (const list of loras.querySelectorAll("select")) this.#fillLoras(list, list.value);
  }

  #loras = [];

  #fillLoras(list, chosen) {
    const pairs = this.#loras.map((each) => [`id:${each.id}`, each.name]);
    if (chosen && !pairs.some(([value]) => value === chosen)) pairs.push([chosen, chosen]);
    list.replaceChildren(...pairs.map(([value, textContent]) => element("option", { value, textContent })));
    list.value = chosen || (pairs[0]?.[0] ?? "");
  }

  #addLora(chosen = "", scale = 1) {
    if (!this.#loras.length && !chosen)
      return say("No LoRA was found below the folder of the studio. Train one, or put its .safetensors there.");
    const list = element("select", { "aria-label": "LoRA" });
    this.#fillLoras(list, chosen);
    const shown = element("output", { textContent: scale.toFixed(2) });
    const slider = element("input", {
      type: "range",
      min: -1,
      max: 2,
      step: 0.05,
      value: scale,
      "aria-label": "Strength",
    });
    slider.addEventListener("input", () => (shown.textContent = Number(slider.value).toFixed(2)));
    const row = element("div", { className: "lora" }, list, slider, shown);
    row.append(iconButton("close", "Remove this LoRA", () => (row.remove(), this.#keep())));
    this.#parts.loras.append(row);
    this.#keep();
  }

  /** Use the LoRA that another tab asks for. */
  #takeLora() {
    const id = this.#store.wantedLora;
    this.#store.wantedLora = null;
    if (id) this.#restore({ ...this.settings, lora: [`id:${id}`] });
  }

  #toggleLock() {
    const { lock } = this.#parts;
    const locked = lock.getAttribute("aria-pressed") !== "true";
    lock.setAttribute("aria-pressed", String(locked));
    lock.innerHTML = icon(locked ? "locked" : "unlocked");
  }

  #roll() {
    this.#parts.seed.value = crypto.getRandomValues(new Uint32Array(1))[0] % MOST_SEED;
    this.#keep();
  }

  #keep() {
    if (!this.#parts) return;
    remember(DRAFT, JSON.stringify(this.settings));
    remember(GRID_DRAFT, JSON.stringify(this.#axes.settings));
  }

  /** Put settings into the form. */
  #restore(settings) {
    const { prompt, base, seed, loras, both } = this.#parts;
    prompt.value = settings.prompt ?? "";
    both.checked = settings.ab ?? false;
    seed.value = settings.seed ?? 0;
    if (settings.base) {
      if (![...base.options].some((option) => option.value === settings.base))
        base.append(element("option", { value: settings.base, textContent: settings.base }));
      base.value = settings.base;
    }
    loras.replaceChildren();
    for (const each of settings.lora ?? []) {
      const [, file, scale] = each.match(/^(id:[^:]+)(?::(.+))?$/) ?? [null, each];
      this.#addLora(file, scale === undefined ? 1 : Number(scale));
    }
    this.#startFrom(settings.input ?? "", "a sound", settings.strength);
    this.#form.settings = settings;
    this.#keep();
  }

  /** Start from a sound, whose name is shown; "" = from nothing but the prompt. */
  #startFrom(value, name = "", strength = USUAL_STRENGTH) {
    const { init } = this.#parts;
    init.dataset.value = value;
    init.hidden = !value;
    const far = element("input", { type: "range", min: 0.05, max: 1, step: 0.05, value: strength });
    init.replaceChildren(
      element("span", { textContent: `Starts from ${name}` }),
      iconButton("close", "Do not start from it", () => (this.#startFrom(""), this.#keep())),
      labelled("How far from it", far, "to the left it keeps most, to the right nothing"),
    );
  }

  /** The command and its settings as the form has them: `edit` where it starts from a sound. */
  async #asked() {
    const { input, strength, ...settings } = this.settings;
    if (!input) return { stage: "generate", settings };
    const given = strength === undefined ? {} : { strength };
    return { stage: "edit", settings: { ...(await sharedSettings("edit", settings)), input, ...given } };
  }

  async #make({ asked, parent, quiet = false }, made) {
    const { stage, settings } = asked ?? (await this.#asked());
    if (!settings.prompt && !settings.prompts && !settings.region) {
      this.#parts.prompt.focus();
      return say("Write a prompt first: what is to be played.");
    }
    const job = await attempt(() => post("/jobs", { stage, settings, ...(parent ? { parent } : {}) }), made);
    if (!job) return;
    this.#store.take(job);
    if (parent?.how !== "compare") this.#running.get(job.id)?.node.scrollIntoView({ block: "nearest" });
    if (!quiet && this.#parts.lock.getAttribute("aria-pressed") !== "true") this.#roll();
  }

  async #copyCommand() {
    const checked = await attempt(async () => {
      const { stage, settings } = await this.#asked();
      return post(`/stages/${stage}/check`, { settings });
    });
    if (checked) copied(checked.command);
  }

  #filterBy(value, pressed) {
    this.#filter = value;
    for (const each of pressed.parentElement.children) each.setAttribute("aria-pressed", String(each === pressed));
    this.#show();
  }

  // --- results ---

  #show() {
    const jobs = this.#store.newest("generate", "edit", "vary").filter((job) => !this.#store.isPiece(job));
    const { results, more } = this.#parts;
    const nodes = [];
    const starred = this.#filter === "starred";
    for (const job of jobs) {
      const compared = job.parent?.how === "compare" && job.state === "finished";
      if (job.state !== "finished" && !starred) nodes.push(this.#runningCard(job).node);
      if (compared) continue; // It is heard in the card of what it is compared with.
      const kept = job.results.filter((result) => !starred || result.starred);
      if (job.stage === "vary") nodes.push(...(kept.length ? [this.#gridCard(job).node] : []));
      else for (const result of kept.reverse()) if (!isBare(result)) nodes.push(this.#resultCard(job, result).node);
    }
    more.hidden = !this.#store.more;
    if (!nodes.length) {
      nodes.push(
        starred
          ? empty("Nothing is starred", "The star on a result keeps it here.")
          : empty(
              "Nothing yet",
              "Write what you want to hear and press Make music. The picture appears while it is drawn; then it plays.",
            ),
      );
    }
    if (nodes.length !== results.childElementCount || nodes.some((node, index) => results.children[index] !== node))
      placeInOrder(results, nodes);
  }

  #runningCard(job) {
    const known = this.#running.get(job.id);
    if (known) {
      known.update(job);
      return known;
    }
    const card = new RunningCard(job, this.#store);
    this.#running.set(job.id, card);
    if (this.#steps.has(job.id) && job.state === "running") card.step(this.#steps.get(job.id));
    return card;
  }

  #gridCard(job) {
    if (!this.#cards.has(job.id))
      this.#cards.set(
        job.id,
        new GridCard(job, this.#store, {
          start: (from, which) => this.#startFromResult(from, which),
          reuse: (from) => this.#restore(from.settings),
        }),
      );
    const card = this.#cards.get(job.id);
    card.update(job);
    return card;
  }

  #resultCard(job, result) {
    const key = `${job.id}/${result.name}`;
    if (!this.#cards.has(key)) {
      this.#cards.set(
        key,
        new ResultCard(job, result, this.#store, {
          vary: (from, which) =>
            this.#again(from, which, "vary", { seed: crypto.getRandomValues(new Uint32Array(1))[0] % MOST_SEED }),
          start: (from, which) => this.#startFromResult(from, which),
          compare: (from, which) => this.#again(from, which, "compare", { seed: which.seed, lora: [] }),
          reuse: (from, which) => this.#restore({ ...from.settings, seed: which.seed }),
          edit: (from, which, change) => attempt(() => editResult(this.#store, from, which, change)),
        }),
      );
    }
    const card = this.#cards.get(key);
    const heard = this.#running.get(job.id)?.heard;
    if (heard?.result === result.name) card.takeOver(heard.stream);
    const others = this.#store
      .newest("generate")
      .filter(
        (each) =>
          each.parent?.how === "compare" &&
          each.parent.job === job.id &&
          each.parent.result === result.name &&
          each.results.length,
      )
      .map((each) => ({ name: "base", result: each.results[0] }));
    const bare = job.results.filter((each) => isBare(each) && each.name === result.name.replace("with", "without"));
    card.update(job, result, [...bare.map((each) => ({ name: "base", result: each })), ...others]);
    return card;
  }

  #again(job, result, how, changed) {
    const settings = { ...job.settings, ...changed };
    if (job.stage === "generate") settings.num = 1;
    if (!settings.lora?.length) for (const name of ["lora", "ab"]) delete settings[name];
    const parent = { job: job.id, result: result.name, how };
    this.#make({ asked: { stage: job.stage, settings }, parent, quiet: true });
  }

  #startFromResult(job, result) {
    this.#startFrom(`id:${result.artefact.sound}`, `“${job.settings.prompt ?? result.prompt}”, seed ${result.seed}`);
    this.#keep();
    this.#parts.prompt.focus();
    say("Say what it should become, and how far from it.");
  }
}

/** Whether a result was drawn without the LoRAs, for the one with them beside it. */
function isBare({ name }) {
  return name.startsWith("without-");
}

/** Bring children into an order while those that stay in place are not touched: a player goes on playing. */
export function placeInOrder(parent, nodes) {
  const wanted = new Set(nodes);
  [...parent.children].filter((child) => !wanted.has(child)).forEach((child) => child.remove());
  nodes.forEach((node, index) => {
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
}
