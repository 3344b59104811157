/**
 * What runs in a worker of the page: the models, and sound from pictures. It does what it is asked, one by one; files, in
 * a worker of their own, side by side.
 */

import { release } from "./bytes.js";
import { invertBlocks } from "./inversion.js";
import { SiteFiles } from "./loading.js";
import { Neighbour } from "./neighbour.js";

/**
 * Products of int8 weights are computed in float32: by default onnxruntime rounds what they are multiplied with too. The
 * weights stay int8 in memory: as float32 (disable_quant_qdq) they would be faster, and too much for a tab.
 */
const FLOAT_PRODUCTS = { session: { qdq_matmulnbits_accuracy_level: "1" } };
const ONLY_ERRORS = 3;
let ort = null;
const sessions = new Map();
const asked = new Map(); // What stops each task, by its number.
let conditions = {};

const TASKS = {
  /** A file of a site, by the method `how` of its files. */
  file({ manifestUrl, how, file }, { id, signal }) {
    const onBytes = (block) => postMessage({ id, block });
    return new SiteFiles(manifestUrl)[how](file, { signal, onBytes });
  },

  /** WebAssembly, compiled, by its address or its bytes: browsers keep the code of what streams in. */
  async compile({ wasm }) {
    if (typeof wasm !== "string") return WebAssembly.compile(wasm);
    const bytes = async () => (await fetch(wasm)).arrayBuffer(); // From a host that does not know what it serves.
    return WebAssembly.compileStreaming(fetch(wasm)).catch(async () => WebAssembly.compile(await bytes()));
  },

  /** Load onnxruntime-web: its module, by its address or its bytes, and its WebAssembly, which is compiled. */
  async start({ module, wasm, threads }) {
    // A page opened from a disk may import what the worker itself made an address for, and nothing else.
    const own = typeof module !== "string" && URL.createObjectURL(new Blob([module], { type: "text/javascript" }));
    ort = await import(own || module);
    ort.env.wasm.numThreads = threads;
    // It takes an address or bytes, which it asks to be compiled and instantiated: the first is done.
    const { instantiate } = WebAssembly;
    WebAssembly.instantiate = async (_, imports) => ({ module: wasm, instance: await instantiate(wasm, imports) });
    ort.env.wasm.wasmBinary = new Uint8Array();
    ort.env.logLevel = "error";
  },

  /**
   * Open a model in place of the one that had the name; `files` are the model and those of its external data, {path,
   * data}, and `provider` is what computes it, wasm or webgpu.
   */
  async open({ name, files, provider }) {
    await TASKS.close({ name });
    const [model, ...beside] = files;
    const options = {
      executionProviders: [provider],
      externalData: beside,
      graphOptimizationLevel: "all",
      logSeverityLevel: ONLY_ERRORS, // Of WebGPU it would also warn that sizes are computed without it.
      extra: FLOAT_PRODUCTS,
    };
    sessions.set(name, await ort.InferenceSession.create(model.data, options));
    files.forEach(({ data }) => release(data));
  },

  /** Let go of a model. */
  async close({ name }) {
    await sessions.get(name)?.release();
    sessions.delete(name);
  },

  /** The embeddings of a text, given by its tokens. */
  async text({ ids, ids_2: otherIds }) {
    const tensor = (tokens) => new ort.Tensor("int64", tokens, [1, tokens.length]);
    const { hidden, pooled } = await sessions.get("text").run({ ids: tensor(ids), ids_2: tensor(otherIds) });
    return { hidden: hidden.data, pooled: pooled.data };
  },

  /** Keep what the UNet makes of all that it is told besides the latents, for a batch of `count`. */
  async condition({ hidden, pooled, sizes, tokens, count }) {
    const of = (data, ...dims) => new ort.Tensor("float32", data, [count, ...dims]);
    const told = {
      hidden: of(hidden, tokens, hidden.length / count / tokens),
      pooled: of(pooled, pooled.length / count),
      sizes: of(sizes, sizes.length / count),
    };
    conditions = { count, made: await sessions.get("conditions").run(told) };
  },

  /** The UNet's prediction for the same latents under every condition. */
  async predict({ latents, dims, timestep }) {
    const { count, made } = conditions;
    const batch = new Float32Array(count * latents.length);
    for (let each = 0; each < count; each++) batch.set(latents, each * latents.length);
    const feeds = {
      latents: new ort.Tensor("float32", batch, [count, ...dims]),
      timestep: new ort.Tensor("float32", Float32Array.of(timestep), [1]),
    };
    return (await sessions.get("unet").run({ ...feeds, ...made })).noise.data;
  },

  /** The picture values of latents: {values, dims}. */
  async decode({ latents, dims }) {
    const feeds = { latents: new ort.Tensor("float32", latents, [1, ...dims]) };
    const { values } = await sessions.get("decoder").run(feeds);
    return { values: values.data, dims: values.dims };
  },

  /** The sound of a picture block by block, or of one half of it, whose other one is at the end of `port`. */
  async sound({ picture, spec, options, port, before }, { id, signal }) {
    const neighbour = port ? new Neighbour(port, before) : null;
    const pause = async () => {
      await turn();
      signal.throwIfAborted();
    };
    try {
      for await (const block of invertBlocks(picture, spec, { ...options, pause, neighbour })) {
        postMessage({ id, block }, block.map(({ buffer }) => buffer));
      }
    } finally {
      neighbour?.leave();
    }
  },
};

const turns = new MessageChannel();

/** Let messages that have come be heard: a timer would wait for milliseconds. */
function turn() {
  return new Promise((resolve) => {
    turns.port1.onmessage = resolve;
    turns.port2.postMessage(null);
  });
}

async function perform({ id, task, ...content }) {
  try {
    const value = await TASKS[task](content, { id, signal: asked.get(id).signal });
    postMessage({ id, value }, value instanceof Uint8Array ? [value.buffer] : []);
  } catch (error) {
    const { name = "Error", message = error, paths } = error ?? {};
    postMessage({ id, error: { name, message: String(message), paths } });
  }
  asked.delete(id);
}

let last = Promise.resolve();
self.onmessage = ({ data }) => {
  if (data.stop !== undefined) return asked.get(data.stop)?.abort();
  asked.set(data.id, new AbortController());
  if (data.task === "file") perform(data);
  else last = last.then(() => perform(data));
};
