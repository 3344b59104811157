/** What runs in a worker of the page: the models, and sound from pictures. It does what it is asked, one by one. */

import { release } from "./bytes.js";
import { invertBlocks } from "./inversion.js";
import { Neighbour } from "./neighbour.js";

/**
 * Products of int8 weights are computed in float32: by default onnxruntime rounds what they are multiplied with too. The
 * weights stay int8 in memory: as float32 (disable_quant_qdq) they would be faster, and too much for a tab.
 */
const FLOAT_PRODUCTS = { session: { qdq_matmulnbits_accuracy_level: "1" } };
const ONLY_ERRORS = 3;
let ort = null;
const sessions = new Map();
const stopped = new Set();
let conditions = {};

const TASKS = {
  /** Load onnxruntime-web: its module and its WebAssembly, by their addresses or their bytes. */
  async start({ module, wasm, threads }) {
    // A page opened from a disk may import what the worker itself made an address for, and nothing else.
    const own = typeof module !== "string" && URL.createObjectURL(new Blob([module], { type: "text/javascript" }));
    ort = await import(own || module);
    ort.env.wasm.numThreads = threads;
    if (typeof wasm === "string") ort.env.wasm.wasmPaths = { wasm };
    else ort.env.wasm.wasmBinary = wasm;
    ort.env.logLevel = "error";
  },

  /**
   * Open a model in place of the one that had the name; `beside` are the files of its external data, {path, data}, and
   * `provider` is what computes it, wasm or webgpu.
   */
  async open({ name, model, beside, provider }) {
    await TASKS.close({ name });
    const options = {
      executionProviders: [provider],
      externalData: beside,
      graphOptimizationLevel: "all",
      logSeverityLevel: ONLY_ERRORS, // Of WebGPU it would also warn that sizes are computed without it.
      extra: FLOAT_PRODUCTS,
    };
    sessions.set(name, await ort.InferenceSession.create(model, options));
    [model, ...beside.map(({ data }) => data)].forEach(release);
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
  async sound({ picture, spec, options, port, before }, id) {
    const neighbour = port ? new Neighbour(port, before) : null;
    const pause = async () => {
      await turn();
      if (stopped.delete(id)) throw new DOMException("stopped", "AbortError");
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
    postMessage({ id, value: await TASKS[task](content, id) });
  } catch (error) {
    postMessage({ id, error: { name: error?.name ?? "Error", message: String(error?.message ?? error) } });
  }
}

let last = Promise.resolve();
self.onmessage = ({ data }) => {
  if (data.stop === undefined) last = last.then(() => perform(data));
  else stopped.add(data.stop);
};
