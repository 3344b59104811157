/** What is to be made: the prompt behind its anchor, the seed, and how the picture is drawn. */

import { element, remember, remembered } from "../elements.js";
import { button, labelled, select } from "../studio/controls.js";
import { SeedField } from "../studio/seed.js";

const DRAFT = "site-draft";
const LONGEST_SECONDS = 600;
const MOST_STEPS = 200;
const LATENT_FACTOR = 8;
const LOOP_COLUMNS = 4;
const SAMPLERS = { dpmpp_2m: "DPM++ 2M", euler: "Euler", ddim: "DDIM" };
const METHODS = { fast: "fast", best: "best, twice as long" };

/** The address of this page with settings in it. */
export function linkTo(settings) {
  const given = Object.entries(settings).filter(([, value]) => value !== null && value !== undefined);
  return `${location.href.split("#")[0]}#${new URLSearchParams(given)}`;
}

/** The form of the site at a path; `on` has make(), copy(settings), link(settings), lora(file). */
export class SettingsForm {
  /** Where it is said how far the model is. */
  loading = element("div", { className: "loading", role: "status" });
  #manifest;
  #draft;
  #fields;
  #lora = null;
  #seed = new SeedField(() => this.#keep());

  constructor(manifest, place, on) {
    [this.#manifest, this.#draft] = [manifest, `${DRAFT} ${place}`];
    this.#fields = this.#controls();
    this.node = this.#build(on);
    this.values = { ...this.#usual(), ...JSON.parse(remembered(this.#draft, "{}")), ...this.#linked() };
  }

  /** The settings as they stand; `seconds` null = one tile. */
  get values() {
    const { prompt, steps, guidance, sampler, seconds, loop, method, quick, scale } = this.#fields;
    const values = {
      prompt: prompt.value.trim(),
      seed: this.#seed.value,
      steps: Number(steps.value),
      guidance: Number(guidance.value),
      sampler: sampler.value,
      seconds: seconds.value === "" ? null : Number(seconds.value),
      loop: loop.checked,
      method: method.value,
    };
    if (quick) values.quick = quick.checked;
    if (scale) values.loraScale = Number(scale.value);
    if (this.#lora) values.lora = this.#lora;
    return values;
  }

  set values(values) {
    const known = { ...this.values, ...values };
    const { prompt, steps, guidance, sampler, seconds, loop, method, quick, scale } = this.#fields;
    this.#seed.value = known.seed;
    prompt.value = known.prompt;
    steps.value = known.steps;
    guidance.value = known.guidance;
    if (this.#manifest.samplers.includes(known.sampler)) sampler.value = known.sampler;
    seconds.value = known.seconds ?? "";
    loop.checked = known.loop;
    method.value = known.method;
    if (quick) quick.checked = known.quick;
    if (scale) this.#showScale(known.loraScale);
    this.#keep();
  }

  /** Whether everything is filled in as it must be; what is not is shown to the person. */
  get valid() {
    return this.node.reportValidity();
  }

  /** Take another seed for the next sound, where it is not locked. */
  nextSeed() {
    if (!this.#seed.locked) this.#seed.roll();
  }

  #usual(quick = false) {
    const { drawing, files, example } = this.#manifest;
    const { steps, guidance, sampler } = (quick && files.steps?.drawing) || drawing;
    const usual = { steps, guidance, sampler };
    if (quick) return usual;
    return { ...usual, prompt: example ?? "", seed: 0, seconds: null, loop: false, method: "fast", loraScale: 1 };
  }

  #controls() {
    const manifest = this.#manifest;
    const { sample_rate: rate, hop_length: hop, width } = manifest.spec;
    const number = (min, max, step, more) =>
      element("input", { type: "number", min, max, step, required: true, ...more });
    const least = Math.ceil((100 * LATENT_FACTOR * LOOP_COLUMNS * hop) / rate) / 100;
    const tile = `${((width * hop) / rate).toFixed(2)}, one tile`;
    const fields = {
      prompt: element("textarea", { rows: 3, required: true, placeholder: "violin ballad with soft piano" }),
      steps: number(1, MOST_STEPS, 1),
      guidance: number(0, 30, "any"),
      sampler: select(manifest.samplers.map((name) => [name, SAMPLERS[name] ?? name])),
      seconds: number(least, LONGEST_SECONDS, "any", { required: false, placeholder: tile }),
      loop: element("input", { type: "checkbox" }),
      method: select(Object.entries(METHODS)),
    };
    if (manifest.files.steps) fields.quick = element("input", { type: "checkbox" });
    if (manifest.lora) fields.scale = element("input", { type: "range", min: -1, max: 2, step: 0.05 });
    return fields;
  }

  #build(on) {
    const { prompt, steps, guidance, sampler, seconds, loop, method, quick } = this.#fields;
    const ticked = (text, control, hint) => {
      const field = labelled(text, control, hint);
      field.classList.add("ticked");
      return field;
    };
    const form = element(
      "form",
      { className: "panel", "aria-label": "What to make", noValidate: true },
      this.#promptField(prompt, this.#manifest.anchor),
      button("Make music", () => on.make(), { kind: "primary wide", name: "play" }),
      this.loading,
      this.#seed.node,
      quick ? ticked("Few steps", quick, "a step adapter draws it in a fraction of the time") : null,
      element(
        "div",
        { className: "fields" },
        labelled("Seconds", seconds, "empty = one tile"),
        labelled("Steps", steps, "more take longer"),
      ),
      ticked("Loop", loop, "its end leads into its start"),
      this.#manifest.lora ? this.#loraField(on) : null,
      element(
        "details",
        { className: "all-settings" },
        element("summary", { textContent: "More settings" }),
        element(
          "div",
          { className: "fields" },
          labelled("Guidance", guidance, "nearer to the prompt; 1 = off"),
          labelled("Sampler", sampler, "how the steps are taken"),
          labelled("Sound", method, "how it is made"),
        ),
      ),
      element(
        "div",
        { className: "actions" },
        button("Copy the command", () => on.copy(this.values), { name: "copy", kind: "quiet" }),
        button("Copy a link", () => on.link(this.values), { name: "copy", kind: "quiet" }),
      ),
    );
    quick?.addEventListener("change", () => (this.values = this.#usual(quick.checked)));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => this.#keep());
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) on.make();
    });
    return form;
  }

  /** The prompt, with the words that stand before every prompt shown in front of it. */
  #promptField(prompt, anchor) {
    const field = labelled("Prompt", prompt, "instruments, style, tempo, mood");
    if (!anchor) return field;
    const words = element("span", { className: "anchor", id: `${prompt.id}-anchor`, textContent: `${anchor},` });
    words.title = "The model knows its pictures by these words: they stand before every prompt.";
    words.addEventListener("click", () => prompt.focus());
    prompt.setAttribute("aria-describedby", `${words.id} ${prompt.getAttribute("aria-describedby")}`);
    const box = element("div", { className: "prompt" });
    prompt.replaceWith(box);
    box.append(words, prompt);
    return field;
  }

  /** The strength of the LoRA, and another LoRA in its place. */
  #loraField(on) {
    const { scale } = this.#fields;
    const file = element("input", { type: "file", accept: ".safetensors", hidden: true });
    const name = element("span", { className: "meta" });
    const use = (lora) => {
      this.#lora = lora;
      name.textContent = lora ?? this.#manifest.command.loras.join(", ");
    };
    use(null);
    file.addEventListener("change", async () => {
      const [chosen] = file.files;
      file.value = "";
      if (!chosen) return;
      const before = this.#lora;
      use(chosen.name); // What is asked for from now on is drawn with it.
      if (!(await on.lora(chosen))) use(before);
    });
    const field = labelled("LoRA", scale);
    field.classList.add("lora-field");
    this.#fields.shown = element("output", { htmlFor: scale.id });
    scale.addEventListener("input", () => this.#showScale(Number(scale.value)));
    scale.after(this.#fields.shown);
    field.append(
      name,
      button("Another LoRA", () => file.click(), { name: "plus", kind: "quiet" }),
      file,
    );
    return field;
  }

  #showScale(scale) {
    this.#fields.scale.value = scale;
    this.#fields.shown.textContent = scale.toFixed(2);
  }

  /** The settings in the address of the page, as `linkTo` puts them there. */
  #linked() {
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    if (!("prompt" in given)) return {};
    const usual = this.#usual();
    const read = (value, like) =>
      typeof like === "boolean" ? value === "true" : typeof like === "string" ? value : Number(value);
    return Object.fromEntries(
      Object.entries({ ...usual, quick: false })
        .filter(([name]) => name in given)
        .map(([name, like]) => [name, read(given[name], like)]),
    );
  }

  /** Keep what differs from the usual: another export may have other usual values. */
  #keep() {
    const usual = this.#usual();
    const own = Object.entries(this.values).filter(([name, value]) => value !== usual[name]);
    remember(this.#draft, JSON.stringify(Object.fromEntries(own)));
  }
}
