/**
 * The engine of the page: `open` reads the models of an exported site into workers; what it returns draws pictures from
 * prompts, makes sounds of them, and writes both as files.
 */

import { joined } from "./bytes.js";
import { commandOf } from "./command.js";
import { Crewman } from "./crew.js";
import { compared, hasRelaxedSimd, hasWebGpu } from "./devices.js";
import { guidedPredictor } from "./guidance.js";
import { LATENT_FACTOR, decodingWindows, layOut } from "./layout.js";
import { blankPicture, closedLoop, framesOf, paste, quantised, turnedLoop } from "./levels.js";
import { Loader } from "./loader.js";
import { SiteFiles } from "./loading.js";
import { filledFactors, readTensors } from "./lora.js";
import { pngBytes } from "./png.js";
import { anchored, chunked, parseWeights, textOf, tokenWeights } from "./prompt.js";
import { retrieveSound } from "./retrieval.js";
import { NoiseSchedule, sample } from "./samplers.js";
import { drawNoise } from "./seeding.js";
import { digestOf } from "./sha256.js";
import { TOKENS, Tokenizer } from "./tokenizer.js";
import { columnsTaken, jointPredictor } from "./views.js";
import { wavBytes } from "./wav.js";

const MOST_WORKERS = 2; // With and without the prompt: the two halves of guidance.
const STAGE = "generate";
/** Where the UNet's graph looks for its weights, and for the factors of its LoRA. */
const [WEIGHTS_FILE, LORA_FILE] = ["unet.weights", "lora.bin"];
/** Where in the noise schedule WebGPU is tried. */
const TRIED_TIMESTEP = 500;

/**
 * Open the models that a manifest names. `worker` is the address of the worker's script, `read` (path) gives the files
 * that the page carries in itself, `manifest` is a promise of what the page reads of it itself, `onProgress` is told
 * {loaded, total} in bytes. Where the site has a runtime for WebGPU, that is tried once the models are open, and
 * `onDevice` is told in words what computes them from then on. Throws an Error of one sentence; that of a file has the
 * `paths` to be loaded again.
 */
export async function open(manifestUrl, options = {}) {
  const { worker = new URL("./worker.js", import.meta.url).href, read = null, signal } = options;
  const { onProgress = () => {}, onDevice = () => {} } = options;
  const cores = globalThis.navigator?.hardwareConcurrency ?? 1;
  const { workers: count = Math.min(MOST_WORKERS, cores) } = options;
  const threads = globalThis.crossOriginIsolated ? Math.max(1, Math.floor(cores / count)) : 1;
  const hire = (provider) => new Crewman(worker, read ? "classic" : "module", provider);
  const crew = Array.from({ length: count }, () => hire("wasm"));
  try {
    const own = new SiteFiles(manifestUrl, read);
    const files = read ? own : new Loader(new URL(manifestUrl, globalThis.location?.href).href, () => hire("wasm"));
    const engine = new Engine(await (options.manifest ?? own.manifest()), files, crew);
    await engine.load({ threads, onProgress, signal });
    if (engine.manifest.files.webgpu) engine.tryWebGpu(() => hire("webgpu")).then(onDevice);
    return engine;
  } catch (error) {
    crew.forEach((each) => each.close());
    throw error;
  }
}

/** The models of a site, open. One thing is done at a time. */
class Engine {
  #files;
  #crew;
  #graphics = null; // The worker that predicts and decodes in place of the crew.
  #schedule;
  #tokenizers;
  #empty = null; // The embeddings of an empty prompt.
  #started; // Resolves when every worker has its runtime.
  #decoding; // Resolves when the decoder is open.
  #held = {}; // Which of its models are open.
  #lora = null; // {name, sha256, content} of the one in place of the exported one.
  #turn = Promise.resolve();

  constructor(manifest, files, crew) {
    this.manifest = manifest;
    this.#files = files;
    this.#crew = crew;
    this.#schedule = new NoiseSchedule(manifest.scheduler);
  }

  /** Everything is loaded side by side; a worker opens each model as soon as it has come. */
  async load({ threads, onProgress, signal }) {
    const { files, lora } = this.manifest;
    const { tokenizer, tokenizer_2: second, text, unet, decoder } = files;
    const { ort, wasm, relaxed } = files.runtime;
    const runtime = { ort, wasm: hasRelaxedSimd() ? relaxed : wasm };
    const models = [text, unet, unet.weights, unet.conditions, decoder, ...(lora ? [lora.file] : [])];
    const wanted = [runtime.ort, runtime.wasm, tokenizer, second, ...models];
    const total = wanted.reduce((sum, file) => sum + file.bytes, 0);
    let loaded = 0;
    const options = { signal, onBytes: (bytes) => onProgress({ loaded: (loaded += bytes), total }) };
    this.#started = this.#start(this.#crew, runtime, threads, options);
    try {
      await Promise.all([
        this.#started,
        this.#readVocabularies(options),
        this.#files.load(text, options).then((model) => this.#open([this.#reader], "text", model)),
        this.#use({ quick: false, loraScale: 1 }, options),
      ]);
    } catch (error) {
      // A damaged runtime says less itself.
      for (const file of Object.values(runtime)) await this.#files.load(file, { signal });
      throw error;
    }
    this.#keepOthers();
  }

  /** Ask for the files that another way of drawing needs, so that a page that is kept offline has them too. */
  async #keepOthers() {
    const { steps, small_decoder: small } = this.manifest.files;
    const unet = steps ? [steps.unet, steps.unet.weights, steps.unet.conditions] : [];
    for (const file of [...unet, small]) if (file) await this.#files.keep(file).catch(() => {});
  }

  /**
   * Draw a picture. `seconds` null is one tile; `quick` draws with the step adapter and the small decoder. `onStep` is
   * told {number, total, latents, rows, columns} after every step, its latents as they are expected to be at the end;
   * `signal` stops within one. Resolves to the picture, {levels, channels, height, width, spec, seconds, ...}: planes
   * of levels, row 0 the lowest band.
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
    const text = anchored(prompt, manifest.anchor);
    signal?.throwIfAborted();
    await this.#use(settings, { signal });
    const embeddings = await this.#embeddings(text);
    const predict = await guidedPredictor(this.#predictors, embeddings, guidance, manifest);
    const whole = layout.starts.length > 1 ? jointPredictor(predict, layout, seed) : predict;
    const noise = drawNoise(seed, latent.channels * latent.height * layout.columns);
    const timesteps = this.#timesteps(settings);
    const latents = await sample(this.#schedule, { sampler, steps, timesteps }, noise, whole, (step, clean) => {
      signal?.throwIfAborted();
      onStep({ number: step + 1, total: steps, latents: clean, rows: latent.height, columns: layout.columns });
      signal?.throwIfAborted();
    });
    const picture = await this.#decode(latents, layout, signal);
    const record = this.#record({ ...settings, timesteps }, text, layout);
    const length = (layout.frames * spec.hop_length) / spec.sample_rate;
    return { ...picture, spec, loop, seconds: length, record };
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
    return commandOf(full, this.manifest, this.#timesteps(full));
  }

  /**
   * Draw with the LoRA of a .safetensors file (Blob) from now on, in place of the exported one; null = with none.
   * Resolves to the names of tensors that are not for the UNet: text encoders have no place for another LoRA.
   */
  async setLora(file) {
    if (!this.manifest.lora) throw new Error("These models were exported without a place for another LoRA.");
    const { lora } = this.manifest;
    const none = { content: new Float32Array(lora.file.bytes / Float32Array.BYTES_PER_ELEMENT), unused: [] };
    const read = file && (await file.arrayBuffer());
    const { content, unused } = read ? filledFactors(lora, readTensors(read)) : none;
    const sha256 = read && (await digestOf(new Uint8Array(read)));
    await this.#alone(() => {
      this.#lora = { name: file?.name ?? null, sha256, content };
      this.#held.unet = null;
    });
    return unused;
  }

  /** Have WebGPU predict and decode from now on, if that is better; resolves to what does, in words. */
  async tryWebGpu(hire) {
    if (!(await hasWebGpu())) return "WebAssembly: this browser has no WebGPU on this device";
    const other = hire();
    try {
      await this.#start([other], this.manifest.files.webgpu, 1, {});
      const { taken, words } = await this.#alone(() => this.#compare(other));
      if (!taken) other.close();
      return words;
    } catch (error) {
      other.close();
      return `WebAssembly: WebGPU does not work here (${error.message})`;
    }
  }

  async #compare(other) {
    const { latent, drawing, files } = this.manifest;
    const usual = { quick: false, loraScale: 1 };
    await this.#use(usual, {});
    await this.#decoding;
    await this.#openUnet([other], usual, {});
    await this.#open([other], "decoder", await this.#files.load(files.decoder));
    const embeddings = await this.#embeddings(this.manifest.anchor);
    const dims = [latent.channels, latent.height, latent.columns];
    const noise = drawNoise(0, latent.channels * latent.height * latent.columns);
    const models = async (predictors, painter) => {
      const predict = await guidedPredictor(predictors, embeddings, drawing.guidance, this.manifest);
      const decode = async () => (await painter.do("decode", { latents: noise, dims })).values;
      return [() => predict(noise, TRIED_TIMESTEP), decode];
    };
    const found = await compared(await models(this.#predictors, this.#painter), await models([other], other));
    if (found.taken) {
      const names = ["conditions", "unet", "decoder"];
      this.#graphics = other;
      await Promise.all(this.#crew.flatMap((each) => names.map((name) => each.do("close", { name }))));
    }
    return found;
  }

  /** Let go of the models. */
  close() {
    [...this.#crew, this.#graphics].forEach((each) => each?.close());
  }

  /** The workers with the UNet, that with the decoder, and that with the text encoders, which makes the sounds. */
  get #predictors() {
    return this.#graphics ? [this.#graphics] : this.#crew;
  }

  get #painter() {
    return this.#graphics ?? this.#crew[0];
  }

  get #reader() {
    return this.#crew.at(-1);
  }

  #alone(task) {
    const done = this.#turn.then(task);
    this.#turn = done.catch(() => {});
    return done;
  }

  /** Start workers. The first one compiles the runtime for all: browsers keep the code of a worker that lives on. */
  async #start(crewmen, { ort, wasm }, threads, options) {
    const [module, binary] = await Promise.all([ort, wasm].map((file) => this.#files.place(file, options)));
    const compiled = await crewmen[0].do("compile", { wasm: binary });
    await Promise.all(crewmen.map((each) => each.do("start", { module, wasm: compiled, threads })));
  }

  async #readVocabularies(options) {
    const { files, text } = this.manifest;
    const load = (file) => this.#files.load(file, options);
    const read = await Promise.all([files.tokenizer, files.tokenizer_2].map(load));
    this.#tokenizers = read.map((content, index) => {
      return new Tokenizer(JSON.parse(new TextDecoder().decode(content)), text.padding[index]);
    });
  }

  /** Open a model. Each worker is given bytes of its own: what a message copies stays until garbage is collected. */
  async #open(crewmen, name, model, beside = []) {
    await this.#started;
    const opened = crewmen.map((each) => {
      const own = (data) => (each === crewmen.at(-1) ? data : data.slice());
      const files = [{ data: model }, ...beside].map(({ path, data }) => ({ path, data: own(data) }));
      const transfer = files.map(({ data }) => data.buffer);
      return each.do("open", { name, files, provider: each.provider }, { transfer });
    });
    await Promise.all(opened);
  }

  /**
   * Have the UNet open that is asked for, and the decoder in memory: it is opened behind the UNet, while that draws.
   * `options` are those of loading.
   */
  async #use({ quick, loraScale }, options) {
    const { files, lora } = this.manifest;
    const wanted = JSON.stringify([quick, lora ? loraScale : 1]);
    const unet = this.#hold("unet", wanted, () => this.#openUnet(this.#predictors, { quick, loraScale }, options));
    const decoder = (quick && files.small_decoder) || files.decoder;
    const loaded = this.#hold("decoder", decoder.sha256, async () => {
      const model = await this.#files.load(decoder, options);
      this.#decoding = unet.then(() => this.#open([this.#painter], "decoder", model));
      this.#decoding.catch(() => (this.#held.decoder = null)); // It is awaited where it decodes.
    });
    await Promise.all([unet, loaded]);
  }

  async #openUnet(crewmen, { quick, loraScale }, options) {
    const { files, lora } = this.manifest;
    const graph = quick ? files.steps.unet : files.unet;
    const wanted = [graph.conditions, graph, graph.weights].map((file) => this.#files.load(file, options));
    const [conditions, model, data] = await Promise.all(wanted);
    const factors = lora ? [{ path: LORA_FILE, data: await this.#factors(loraScale, options) }] : [];
    const copies = factors.map((each) => ({ ...each, data: each.data.slice() }));
    await this.#open(crewmen, "conditions", conditions, copies);
    await this.#open(crewmen, "unet", model, [{ path: WEIGHTS_FILE, data }, ...factors]);
  }

  async #hold(name, wanted, opened) {
    if (this.#held[name] === wanted) return;
    this.#held[name] = wanted;
    try {
      await opened();
    } catch (error) {
      this.#held[name] = null;
      throw error;
    }
  }

  async #factors(scale, options) {
    const { lora } = this.manifest;
    const taken = this.#lora?.content.slice();
    const factors = taken ?? new Float32Array((await this.#files.load(lora.file, options)).buffer);
    for (const { up: [offset, shape] } of lora.factors) {
      const first = offset / Float32Array.BYTES_PER_ELEMENT;
      const last = first + shape.reduce((product, size) => product * size, 1);
      for (let at = first; at < last; at++) factors[at] *= scale;
    }
    return new Uint8Array(factors.buffer);
  }

  /**
   * Embeddings of an empty prompt and of one with weights: two rows each of {hidden, pooled}, as many `tokens` as the
   * prompt's chunks have together. Its pooled text is that of the first chunk.
   */
  async #embeddings(prompt) {
    const count = (text) => this.#tokenizers.at(-1).tokens(text).length;
    const empty = await (this.#empty ??= this.#read(""));
    const [hidden, pooled] = [[], []];
    for (const spans of chunked(parseWeights(prompt), count)) {
      const chunk = await this.#read(textOf(spans));
      hidden.push(weighted(chunk.hidden, empty.hidden, tokenWeights(spans, count)));
      pooled.push(chunk.pooled);
    }
    return {
      hidden: joined([...hidden.map(() => empty.hidden), ...hidden]),
      pooled: joined([empty.pooled, pooled[0]]),
      tokens: TOKENS * hidden.length,
    };
  }

  #read(text) {
    const [ids, otherIds] = this.#tokenizers.map((each) => BigInt64Array.from(each.encode(text), BigInt));
    return this.#reader.do("text", { ids, ids_2: otherIds });
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
    await this.#decoding;
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
    if (this.#lora) settings.lora = this.#lora.name;
    const decoder = (quick && files.small_decoder) || files.decoder;
    const unet = quick ? files.steps.unet : files.unet;
    const used = { text: files.text, unet, "unet weights": unet.weights, conditions: unet.conditions, decoder };
    const inputs = Object.fromEntries(Object.entries(used).map(([name, { sha256 }]) => [`onnx ${name}`, sha256]));
    if (this.#lora?.sha256) inputs.lora = this.#lora.sha256;
    return { stage: STAGE, settings, inputs, toolkit: manifest.made_with };
  }
}

/** Embeddings of tokens, each as far from those of an empty prompt as its weight says. */
function weighted(hidden, empty, weights) {
  const width = hidden.length / weights.length;
  return hidden.map((each, at) => {
    const weight = weights[Math.floor(at / width)];
    return weight === 1 ? each : empty[at] + weight * (each - empty[at]);
  });
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
