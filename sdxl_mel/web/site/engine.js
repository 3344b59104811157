/**
 * The engine of the page: `open` reads the models of an exported site into workers; what it returns draws pictures from
 * prompts, makes sounds of them, and writes both as files.
 */

import { commandOf } from "./command.js";
import { Crewman } from "./crew.js";
import { guidedPredictor } from "./guidance.js";
import { LATENT_FACTOR, decodingWindows, layOut } from "./layout.js";
import { blankPicture, closedLoop, framesOf, paste, quantised, turnedLoop } from "./levels.js";
import { SiteFiles } from "./loading.js";
import { filledFactors, readTensors } from "./lora.js";
import { pngBytes } from "./png.js";
import { fittedPrompt, parseWeights, tokenWeights } from "./prompt.js";
import { retrieveSound } from "./retrieval.js";
import { NoiseSchedule, sample } from "./samplers.js";
import { drawNoise } from "./seeding.js";
import { TOKENS, Tokenizer } from "./tokenizer.js";
import { columnsTaken, jointPredictor } from "./views.js";
import { wavBytes } from "./wav.js";

const MOST_WORKERS = 2; // With and without the prompt: the two halves of guidance.
const STAGE = "generate";

/**
 * Open the models that a manifest names. `worker` is the address of the worker's script, `read` (path) gives the files
 * that the page carries in itself, `onProgress` is told {what, loaded, total} in bytes. Throws an Error of one
 * sentence; that of a file has the `paths` to be loaded again.
 */
export async function open(manifestUrl, options = {}) {
  const { worker = new URL("./worker.js", import.meta.url).href, read = null, onProgress = () => {}, signal } = options;
  const cores = globalThis.navigator?.hardwareConcurrency ?? 1;
  const { workers: count = Math.min(MOST_WORKERS, cores) } = options;
  const files = new SiteFiles(manifestUrl, read);
  const manifest = await files.manifest();
  const threads = globalThis.crossOriginIsolated ? Math.max(1, Math.floor(cores / count)) : 1;
  const crew = Array.from({ length: count }, () => new Crewman(worker, read ? "classic" : "module"));
  const engine = new Engine(manifest, files, crew);
  try {
    await engine.load({ threads, onProgress, signal });
    return engine;
  } catch (error) {
    engine.close();
    throw error;
  }
}

/** The models of a site, open. One thing is done at a time. */
class Engine {
  #files;
  #crew;
  #schedule;
  #tokenizers;
  #held = {}; // Which of its models are open.
  #lora = null;
  #turn = Promise.resolve();

  constructor(manifest, files, crew) {
    this.manifest = manifest;
    this.#files = files;
    this.#crew = crew;
    this.#schedule = new NoiseSchedule(manifest.scheduler);
  }

  async load({ threads, onProgress, signal }) {
    const { files, text } = this.manifest;
    const { runtime } = files;
    const vocabularies = [files.tokenizer, files.tokenizer_2];
    const models = [files.text, files.unet, files.decoder, ...(this.manifest.lora ? [this.manifest.lora.file] : [])];
    const wanted = [runtime.ort, runtime.wasm, ...vocabularies, ...models];
    const total = wanted.reduce((sum, file) => sum + file.bytes, 0);
    let loaded = 0;
    const loading = (what) => ({ signal, onBytes: (bytes) => onProgress({ what, loaded: (loaded += bytes), total }) });
    const module = await this.#files.place(runtime.ort, loading("the runtime"));
    const wasm = await this.#files.place(runtime.wasm, loading("the runtime"));
    const started = Promise.all(this.#crew.map((each) => each.do("start", { module, wasm, threads })));
    started.catch(() => {}); // It is awaited below, after what loads meanwhile.
    const tokenizers = vocabularies.map((file) => this.#files.json(file, loading("the vocabulary")));
    this.#tokenizers = (await Promise.all(tokenizers)).map((file, index) => new Tokenizer(file, text.padding[index]));
    const texts = await this.#files.load(files.text, loading("the text encoders"));
    await started;
    await this.#open(this.#reader, "text", texts);
    await this.#use({ quick: false, loraScale: 1 }, loading);
    this.#keepOthers();
  }

  /** Ask for the files that another way of drawing needs, so that a page that is kept offline has them too. */
  async #keepOthers() {
    const { steps, small_decoder: small } = this.manifest.files;
    for (const file of [steps?.unet, small]) if (file) await this.#files.load(file).catch(() => {});
  }

  /**
   * Draw a picture. `seconds` null is one tile; `quick` draws with the step adapter and the small decoder. `onStep` is
   * told {number, total, latents, rows, columns} after every step; `signal` stops within one. Resolves to the picture,
   * {levels, channels, height, width, spec, seconds, ...}: planes of levels, row 0 the lowest band; `dropped` are words
   * of the prompt that the text encoders have no place for.
   */
  draw(settings) {
    return this.#alone(() => this.#draw({ ...this.usual(settings.quick), ...given(settings) }));
  }

  /** How the models ask to be drawn, with the step adapter or without. */
  usual(quick = false) {
    const { files, drawing } = this.manifest;
    const { sampler, steps, guidance } = quick ? files.steps.drawing : drawing;
    return { prompt: "", seed: 0, sampler, steps, guidance, seconds: null, loop: false, loraScale: 1, quick };
  }

  async #draw(settings) {
    const { prompt, seed, sampler, steps, guidance, seconds, loop, signal, onStep = () => {} } = settings;
    const { manifest } = this;
    const { spec, latent } = manifest;
    const layout = layOut(seconds, loop, spec);
    const { text, dropped } = this.#fitted(prompt);
    signal?.throwIfAborted();
    await this.#use(settings, () => ({ signal }));
    const embeddings = await this.#embeddings(text);
    const predict = await guidedPredictor(this.#crew, embeddings, guidance, manifest);
    const whole = layout.starts.length > 1 ? jointPredictor(predict, layout, seed) : predict;
    const noise = drawNoise(seed, latent.channels * latent.height * layout.columns);
    const timesteps = this.#timesteps(settings);
    const latents = await sample(this.#schedule, { sampler, steps, timesteps }, noise, whole, (step, latents) => {
      signal?.throwIfAborted();
      onStep({ number: step + 1, total: steps, latents, rows: latent.height, columns: layout.columns });
      signal?.throwIfAborted();
    });
    const picture = await this.#decode(latents, layout, signal);
    const record = this.#record({ ...settings, timesteps }, text, layout);
    const length = (layout.frames * spec.hop_length) / spec.sample_rate;
    return { ...picture, spec, loop, seconds: length, record, text, dropped };
  }

  /** The sound of a picture, {rate, channels: [samples, ...]}; `onBlock` is given each block of a long one at once. */
  sound(picture, { method = "fast", signal, onBlock = () => {} } = {}) {
    const { spec, loop = false, record } = picture;
    return this.#alone(async () => {
      const channels = await retrieveSound(this.#crew, picture, spec, { method, loop }, { signal, onBlock });
      return { rate: spec.sample_rate, channels, loop, spec, record };
    });
  }

  /** The bytes of a WAV file of a sound, with its spec and what made it. */
  wav({ rate, channels, loop, spec, record }) {
    return wavBytes(channels, rate, { loop, comment: asciiJson({ melspec: spec, record }) });
  }

  /** The bytes of a PNG of a picture, with its spec and what made it, as every command reads it. */
  png(picture) {
    const { spec, record } = picture;
    return pngBytes(picture, spec, { melspec: JSON.stringify(spec), record: JSON.stringify(record) });
  }

  /** The command line that draws the same. */
  command(settings) {
    const full = { ...this.usual(settings.quick), ...given(settings) };
    const prompt = this.#fitted(full.prompt).kept; // The command would read a longer one in chunks.
    return commandOf({ ...full, prompt }, this.manifest, this.#timesteps(full));
  }

  /**
   * Draw with the LoRA of a .safetensors file (Blob) from now on, in place of the exported one; null = with none.
   * Resolves to the names of tensors that are not for the UNet: text encoders have no place for another LoRA.
   */
  async setLora(file) {
    if (!this.manifest.lora) throw new Error("These models were exported without a place for another LoRA.");
    const { lora } = this.manifest;
    const none = { content: new Float32Array(lora.file.bytes / Float32Array.BYTES_PER_ELEMENT), unused: [] };
    const { content, unused } = file ? filledFactors(lora, readTensors(await file.arrayBuffer())) : none;
    await this.#alone(() => {
      this.#lora = content;
      this.#held.unet = null;
    });
    return unused;
  }

  /** Let go of the models. */
  close() {
    this.#crew.forEach((each) => each.close());
  }

  /** The worker with the decoder, and the one with the text encoders, which makes the sounds. */
  get #painter() {
    return this.#crew[0];
  }

  get #reader() {
    return this.#crew.at(-1);
  }

  #alone(task) {
    const done = this.#turn.then(task);
    this.#turn = done.catch(() => {});
    return done;
  }

  #open(crewman, name, model, factors) {
    return crewman.do("open", { name, model, factors }, { transfer: [model.buffer] });
  }

  /** Have the UNet and the decoder open that are asked for; `loading` (what) gives the options of loading. */
  async #use({ quick, loraScale }, loading) {
    const { files, lora } = this.manifest;
    await this.#hold("unet", JSON.stringify([quick, lora ? loraScale : 1]), async () => {
      const model = await this.#files.load(quick ? files.steps.unet : files.unet, loading("the UNet"));
      const factors = lora ? await this.#factors(loraScale, loading("the LoRA")) : undefined;
      const [first, ...others] = this.#crew;
      const copies = others.map((each) => this.#open(each, "unet", model.slice(), factors));
      await Promise.all([this.#open(first, "unet", model, factors), ...copies]);
    });
    const decoder = (quick && files.small_decoder) || files.decoder;
    await this.#hold("decoder", decoder.sha256, async () => {
      await this.#open(this.#painter, "decoder", await this.#files.load(decoder, loading("the decoder")));
    });
  }

  async #hold(name, wanted, opened) {
    if (this.#held[name] === wanted) return;
    this.#held[name] = null;
    await opened();
    this.#held[name] = wanted;
  }

  async #factors(scale, options) {
    const { lora } = this.manifest;
    const stored = this.#lora ?? new Float32Array((await this.#files.load(lora.file, options)).buffer);
    const factors = stored.slice();
    for (const { up: [offset, shape] } of lora.factors) {
      const first = offset / Float32Array.BYTES_PER_ELEMENT;
      const last = first + shape.reduce((product, size) => product * size, 1);
      for (let at = first; at < last; at++) factors[at] *= scale;
    }
    return new Uint8Array(factors.buffer);
  }

  #fitted(prompt) {
    return fittedPrompt(prompt, this.manifest.anchor, (text) => this.#count(text));
  }

  #count(text) {
    return this.#tokenizers.at(-1).tokens(text).length;
  }

  /** Embeddings of an empty prompt and of one with weights: two rows each of {hidden, pooled}. */
  async #embeddings(prompt) {
    const spans = parseWeights(prompt);
    const texts = ["", spans.map(({ text }) => text).join("")];
    const [ids, otherIds] = this.#tokenizers.map((each) =>
      BigInt64Array.from(texts.flatMap((text) => each.encode(text)), BigInt),
    );
    const { hidden, pooled } = await this.#reader.do("text", { ids, ids_2: otherIds, count: texts.length });
    const size = hidden.length / 2;
    const [width, weights] = [size / TOKENS, tokenWeights(spans, (text) => this.#count(text))];
    for (let at = 0; at < size; at++) {
      const weight = weights[Math.floor(at / width)];
      if (weight !== 1) hidden[size + at] = hidden[at] + weight * (hidden[size + at] - hidden[at]);
    }
    return { hidden, pooled };
  }

  /** Where the steps lie: as the models ask, and trailing where they are as many as nobody asked for. */
  #timesteps({ quick, steps }) {
    const { timesteps } = quick ? this.manifest.files.steps.drawing : this.manifest.drawing;
    return Array.isArray(timesteps) && timesteps.length !== steps ? "trailing" : (timesteps ?? null);
  }

  /** The picture of latents, decoded in windows as wide as a tile and joined; a loop is closed and turned. */
  async #decode(latents, layout, signal) {
    const { spec } = this.manifest;
    let canvas = null;
    const windows = decodingWindows(layout);
    for (const { columns, first, overlap, total } of windows) {
      signal?.throwIfAborted();
      const tile = await this.#decoded(columnsTaken(latents, layout.columns, columns), columns.length);
      canvas ??= blankPicture(tile.channels, tile.height, total);
      paste(canvas, tile, first, overlap, spec);
    }
    if (!layout.loop) return framesOf(canvas, 0, layout.frames);
    return turnedLoop(closedLoop(canvas, canvas.width - layout.frames, spec), LATENT_FACTOR);
  }

  async #decoded(latents, columns) {
    const { latent, spec } = this.manifest;
    const shape = [latent.channels, latent.height, columns];
    const { values, dims } = await this.#painter.do("decode", { latents, dims: shape });
    const [, channels, height, width] = dims;
    const levels = quantised(values);
    if (spec.low_at === "top") return { channels, height, width, levels };
    const turned = blankPicture(channels, height, width);
    for (let row = 0; row < channels * height; row++) {
      const from = height * Math.floor(row / height) + height - 1 - (row % height);
      turned.levels.set(levels.subarray(from * width, (from + 1) * width), row * width);
    }
    return turned;
  }

  #record({ prompt, seed, sampler, steps, guidance, timesteps, seconds, loop, loraScale, quick }, text, layout) {
    const { manifest } = this;
    const { files, lora } = manifest;
    const settings = { base: manifest.command.base, weights: manifest.weights, anchor: manifest.anchor };
    Object.assign(settings, { prompt, texts: [[0, text]], seed, sampler, steps, guidance });
    Object.assign(settings, { seconds, frames: layout.frames, loop });
    if (timesteps) settings.timesteps = String(timesteps);
    if (lora) settings.lora_scale = loraScale;
    const decoder = (quick && files.small_decoder) || files.decoder;
    const used = { text: files.text, unet: quick ? files.steps.unet : files.unet, decoder };
    const inputs = Object.fromEntries(Object.entries(used).map(([name, { sha256 }]) => [`onnx ${name}`, sha256]));
    return { stage: STAGE, settings, inputs, toolkit: manifest.made_with };
  }
}

/** Settings without those that are left open. */
function given(settings) {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined));
}

/** JSON in ASCII, as old readers of INFO lists want it. */
function asciiJson(value) {
  const escaped = (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value).replace(/[\u0080-\uffff]/g, escaped);
}
