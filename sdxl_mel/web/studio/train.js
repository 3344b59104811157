/** The tab Train: begin a run, watch its curves, hear its samples, choose a checkpoint. */

import "../player.js";
import { element } from "../elements.js";
import { ask, post, query } from "./api.js";
import { chart, short, smoothed } from "./chart.js";
import { ago, button, empty, labelled, progressBar, select } from "./controls.js";
import { SettingsForm } from "./form.js";
import { attempt, say } from "./notices.js";

const LEADING = ["base", "cache", "steps", "batch", "save_every", "adapter.rank", "optimizer.rate"];
const VALIDATION = "validation/";
const ENDED = ["finished", "failed", "cancelled", "interrupted"];
const REDRAW_MS = 500;
const READ_AGAIN_MS = 5000;
const MOST_MESSAGES = 40;

/** The tab. */
export class Train {
  #store;
  #form;
  #parts;
  #chosen = null;
  #rows = [];
  #drawn = 0;
  #read = 0;
  #players = new Map();
  #begun = null;
  #shownJobs = new Set();

  constructor(store) {
    this.#store = store;
    this.node = element("div", { className: "split" });
  }

  async open() {
    const { schema } = await ask("/stages/train");
    this.#form = new SettingsForm(schema, { store: this.#store, leading: LEADING, left: ["dry_run"] });
    const name = element("input", { type: "text", placeholder: "my-run", pattern: "[\\w.\\-]+" });
    const configs = select([["", "none"]], "", (id) => this.#useConfig(id));
    this.#parts = {
      name,
      configs,
      estimate: element("pre", { className: "messages", hidden: true, "aria-live": "polite" }),
      runs: element("div", { className: "run-list" }),
      detail: element("section", { className: "run", "aria-label": "The run" }),
    };
    const estimate = button("Memory and time", (event, made) => this.#submit(made, true), { kind: "quiet" });
    const start = button("Start", (event, made) => this.#submit(made, false), { kind: "primary", name: "play" });
    const panel = element(
      "form",
      { className: "panel", "aria-label": "A new run" },
      labelled("Name", name, "its folder below runs/"),
      labelled("Config", configs, "a .toml whose settings fill this form"),
      this.#form.common,
      this.#form.all,
      element("div", { className: "actions" }, estimate, start),
      this.#parts.estimate,
    );
    panel.addEventListener("submit", (event) => event.preventDefault());
    this.node.append(
      panel,
      element("div", {}, element("h2", { textContent: "Runs" }), this.#parts.runs, this.#parts.detail),
    );
    this.#store.addEventListener("job", ({ detail }) => detail.stage === "train" && this.#jobChanged(detail));
    this.#store.addEventListener("artefacts", () => this.#readLists());
    this.#store.addEventListener("metrics", ({ detail }) => {
      // Its folder is there only a while after the run began.
      if (this.#shownJobs.has(detail.job)) this.#metrics(detail);
      else this.#readRuns();
    });
    this.#store.addEventListener("progress", ({ detail }) => this.#progress(detail));
    this.#store.addEventListener("message", ({ detail }) => this.#message(detail));
    await this.#readLists();
  }

  async #readLists() {
    const configs = await this.#store.artefacts("config");
    const list = this.#parts.configs;
    const chosen = list.value;
    list.replaceChildren(
      ...[["", "none"], ...configs.map((each) => [each.id, each.name])].map(([value, textContent]) =>
        element("option", { value, textContent }),
      ),
    );
    list.value = chosen;
    await this.#readRuns();
  }

  async #useConfig(id) {
    const config = id ? await attempt(() => ask(`/artefacts/${id}`)) : { settings: {} };
    if (config?.settings) this.#form.settings = config.settings;
  }

  async #submit(made, dry) {
    const settings = this.#form.settings;
    if (dry) settings.dry_run = true;
    const name = this.#parts.name.value.trim();
    const body = { stage: "train", settings };
    if (name && !dry) body.name = name;
    const job = await attempt(() => post("/jobs", body), made);
    if (!job) return;
    this.#store.take(job);
    if (dry) {
      this.#estimating = job.id;
      this.#parts.estimate.hidden = false;
      this.#parts.estimate.textContent = "Counting …";
    } else {
      this.#begun = job.id;
      say("The run waits for its turn. It goes on when this page is closed.");
    }
  }

  #estimating = null;

  async #jobChanged(job) {
    if (job.id === this.#estimating && ENDED.includes(job.state)) {
      const { messages } = await ask(`/jobs/${job.id}/messages`);
      this.#parts.estimate.textContent = [...messages, job.error].filter(Boolean).join("\n");
      this.#estimating = null;
      attempt(() => post(`/jobs/${job.id}/remove`));
    }
    await this.#readRuns();
  }

  // --- runs ---

  async #readRuns() {
    const found = await attempt(() => ask("/runs"));
    if (!found) return;
    const { runs } = this.#parts;
    const waiting = this.#store
      .newest("train")
      .filter((job) => !job.settings.dry_run && !found.runs.some((run) => run.job === job.id));
    const rows = [...waiting.map((job) => this.#waitingRow(job)), ...found.runs.map((run) => this.#runRow(run))];
    runs.replaceChildren(
      ...(rows.length
        ? rows
        : [
            empty(
              "No run yet",
              "Choose a base and a cache, look at memory and time, then start. A cache is made by sdxl-mel cache.",
            ),
          ]),
    );
    this.#shownJobs = new Set(found.runs.map(({ job }) => job));
    const begun = found.runs.find(({ job }) => job && job === this.#begun);
    if (begun) {
      this.#begun = null;
      await this.#choose(begun.id);
    } else if (this.#chosen && found.runs.some(({ id }) => id === this.#chosen.id)) await this.#readRun(this.#chosen.id);
    else if (found.runs.length) await this.#choose(found.runs[0].id);
    else {
      delete this.#parts.detail.dataset.shown;
      this.#parts.detail.replaceChildren();
    }
  }

  #waitingRow(job) {
    const words = job.error ?? job.state;
    return element(
      "div",
      { className: "run-row" },
      element("span", { textContent: job.name }),
      element("span", { className: job.error ? "error" : "meta", textContent: words }),
      this.#jobButtons(job),
    );
  }

  #runRow(run) {
    const words = `${run.state}, step ${run.step}${run.steps ? ` of ${run.steps}` : ""}, ${ago(run.modified)}`;
    const row = element("button", {
      type: "button",
      className: "run-row",
      "aria-pressed": String(run.id === this.#chosen?.id),
      onclick: () => this.#choose(run.id),
    });
    row.dataset.run = run.id;
    row.append(element("span", { textContent: run.name }), element("span", { className: "meta", textContent: words }));
    return row;
  }

  #jobButtons(job) {
    const act = (path) => (event, made) =>
      attempt(async () => this.#store.take(await post(`/jobs/${job.id}/${path}`)), made);
    const running = !ENDED.includes(job.state);
    return element(
      "span",
      { className: "actions" },
      running
        ? button("Stop", act("cancel"), { name: "stop", kind: "quiet" })
        : button("Resume", act("again"), { name: "again", kind: "quiet", hidden: job.state === "finished" }),
    );
  }

  async #choose(id) {
    this.#chosen = { id };
    this.#players.clear();
    for (const row of this.#parts.runs.querySelectorAll("[data-run]"))
      row.setAttribute("aria-pressed", String(row.dataset.run === id));
    this.#rows = [];
    await this.#readRun(id);
  }

  async #readRun(id) {
    const run = await attempt(() => ask(`/runs/${id}`));
    if (!run || this.#chosen?.id !== id) return;
    this.#chosen = { ...run, id };
    const after = this.#rows.length ? Math.max(...this.#rows.map(({ step }) => step)) : undefined;
    const found = await attempt(() => ask(query(`/runs/${id}/metrics`, { after })));
    if (!found || this.#chosen?.id !== id) return;
    this.#rows.push(...found.rows);
    this.#read = performance.now();
    this.#showRun();
  }

  /** Show the run that is chosen; what is there already stays: a button under a pointer, a sample that plays. */
  #showRun() {
    const run = this.#chosen;
    const job = run.job ? this.#store.jobs.get(run.job) : null;
    const shown = `${run.id} ${job && (ENDED.includes(job.state) ? job.state : "runs")}`;
    if (this.#parts.detail.dataset.shown !== shown) {
      this.#parts.detail.dataset.shown = shown;
      Object.assign(this.#parts, {
        progress: element("div"),
        charts: element("div", { className: "charts" }),
        samples: element("div", { className: "samples" }),
        messages: element("pre", { className: "messages", "aria-label": "What the run says", hidden: true }),
      });
      const actions = job ? this.#jobButtons(job) : element("span");
      const error = job?.error ? [element("p", { className: "error", textContent: job.error })] : [];
      this.#parts.detail.replaceChildren(
        element("header", {}, element("h3", { textContent: run.name }), actions),
        ...error,
        this.#parts.progress,
        this.#parts.charts,
        this.#parts.samples,
        this.#parts.messages,
      );
      if (job) this.#showMessages(job.id);
    }
    const words = `step ${run.step}${run.steps ? ` of ${run.steps}` : ""}`;
    this.#parts.progress.replaceChildren(progressBar(run.steps ? run.step / run.steps : null, words));
    this.#showSamples(run);
    this.#drawCharts();
  }

  /** Show what a job has said so far. */
  async #showMessages(id) {
    const { messages } = this.#parts;
    const said = await attempt(() => ask(`/jobs/${id}/messages`));
    if (!said?.messages.length) return;
    messages.hidden = false;
    messages.textContent = said.messages.slice(-MOST_MESSAGES).join("\n");
  }

  /** The samples of a run, the last steps first; every prompt is a player that switches between steps. */
  #showSamples(run) {
    const steps = (run.samples ?? []).filter(({ results }) => results.length);
    const { samples } = this.#parts;
    if (!steps.length) return samples.replaceChildren();
    for (const name of new Set(steps.flatMap(({ results }) => results.map((each) => each.name)))) {
      if (!this.#players.has(name)) this.#players.set(name, element("mel-player", { label: `sample ${name}` }));
      const player = this.#players.get(name);
      const sources = steps
        .filter(({ results }) => results.some((each) => each.name === name))
        .map(({ step, results }) => {
          const { picture, sound } = results.find((each) => each.name === name);
          return { picture, sound, name: `step ${step}` };
        });
      if (player.sources.length === sources.length) continue;
      player.sources = sources;
      if (!player.playing) player.select(sources.length - 1);
    }
    if (samples.querySelectorAll("mel-player").length === this.#players.size) return;
    const cards = [...this.#players.values()].map((player) => element("article", { className: "card" }, player));
    samples.replaceChildren(
      element("h3", { textContent: "Samples by step" }),
      element("p", { className: "meta", textContent: "X switches to the next step at the same place." }),
      element("div", { className: "results" }, ...cards),
    );
  }

  #metrics({ job, rows }) {
    if (!this.#chosen || job !== this.#chosen.job) return;
    const known = this.#rows.length ? this.#rows.at(-1).step : -1;
    this.#rows.push(...rows.filter((row) => row.step > known));
    if (performance.now() - this.#drawn > REDRAW_MS) this.#drawCharts();
    // Checkpoints and samples come without a word.
    if (performance.now() - this.#read > READ_AGAIN_MS) {
      this.#read = performance.now();
      this.#readRun(this.#chosen.id);
    }
  }

  #progress({ job, progress }) {
    if (!this.#chosen || job !== this.#chosen.job || !this.#parts.progress) return;
    const share = progress.total ? progress.done / progress.total : null;
    const words = [
      `${progress.what ?? "step"} ${progress.done}${progress.total ? ` of ${progress.total}` : ""}`,
      progress.note,
    ]
      .filter(Boolean)
      .join(" · ");
    this.#parts.progress.replaceChildren(progressBar(share, words));
  }

  #message({ job, text }) {
    const { messages } = this.#parts;
    if (!this.#chosen || job !== this.#chosen.job || !messages) return;
    messages.hidden = false;
    messages.textContent = [...messages.textContent.split("\n"), text].slice(-MOST_MESSAGES).join("\n").trim();
  }

  #drawCharts() {
    this.#drawn = performance.now();
    const rows = this.#rows;
    const points = (name) => rows.filter((row) => typeof row[name] === "number").map((row) => [row.step, row[name]]);
    const training = [
      ["loss", "loss"],
      ["squared_error", "squared error"],
    ].map(([name, words]) => ({ name: words, points: smoothed(points(name)) }));
    const kinds = [...new Set(rows.flatMap((row) => Object.keys(row).filter((name) => name.startsWith(VALIDATION))))];
    const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const validation = kinds.map((name) => ({
      name: name.slice(VALIDATION.length),
      points: rows.filter((row) => Array.isArray(row[name])).map((row) => [row.step, mean(row[name])]),
    }));
    this.#parts.charts.replaceChildren(
      chart("Training, smoothed", training, { logarithmic: true }),
      chart("Validation: squared error, fixed noise", validation),
      chart("Squared error by noise level, lowest to highest tenth", this.#byTenth(rows), { logarithmic: true }),
      this.#checkpoints(validation),
    );
  }

  #byTenth(rows) {
    const [low, middle, high] = [
      [0, 3],
      [3, 7],
      [7, 10],
    ];
    return [
      ["lowest three tenths", low],
      ["middle", middle],
      ["highest three tenths", high],
    ].map(([name, [from, to]]) => ({
      name,
      points: smoothed(
        rows.flatMap((row) => {
          const values = (row.by_timestep ?? []).slice(from, to).filter((value) => value >= 0);
          return values.length ? [[row.step, values.reduce((sum, value) => sum + value, 0) / values.length]] : [];
        }),
        0.9,
      ),
    }));
  }

  #checkpoints(validation) {
    const held = validation.find(({ name }) => name === "held out") ?? validation[0];
    const steps = this.#chosen.checkpoints ?? [];
    if (!steps.length) return element("p", { className: "meta", textContent: "No checkpoint yet." });
    const nearest = (step) => held?.points.findLast(([at]) => at <= step)?.[1] ?? null;
    const values = steps.map(({ id, step }) => ({ id, step, value: nearest(step) }));
    const best = Math.min(...values.map(({ value }) => value ?? Infinity));
    const rows = values.map(({ id, step, value }) =>
      element(
        "tr",
        {},
        element("td", { textContent: step }),
        element("td", { textContent: `${short(value)}${value === best ? "  lowest" : ""}` }),
        element(
          "td",
          {},
          button("Make music with it", () => this.#store.useLora(id), { kind: "quiet", name: "play" }),
        ),
      ),
    );
    const head = ["step", held ? `squared error, ${held.name}` : "validation", ""].map((textContent) =>
      element("th", { textContent }),
    );
    return element(
      "table",
      {},
      element("caption", { textContent: "Checkpoints" }),
      element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...rows),
    );
  }
}
