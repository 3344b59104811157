/** The workers of a page, each with a runtime of its own, and calls of them as promises. */

const NO_MEMORY = /memory|allocat|bad_alloc/i;

/** A worker that is given tasks; `provider` is what computes its models, WebAssembly or WebGPU. */
export class Crewman {
  #worker;
  #waiting = new Map();
  #next = 0;
  #ended = null; // Why it does nothing any more.

  /** `address` is that of the worker's script; a page opened from a disk can start classic ones only. */
  constructor(address, type, provider = "wasm") {
    this.provider = provider;
    this.#worker = new Worker(address, { type });
    this.#worker.onmessage = ({ data }) => this.#heard(data);
    this.#worker.onerror = (event) => {
      event.preventDefault?.();
      this.#failed(new Error(`The page's worker does not run (${event.message ?? "it could not be loaded"}).`));
    };
  }

  /** Do a task; resolves to its value. Blocks of its result go to `onBlock`; `signal` stops what can be stopped. */
  do(task, content = {}, { transfer = [], onBlock, signal } = {}) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#ended) throw this.#ended;
      const stop = () => this.#worker.postMessage({ stop: id });
      signal?.addEventListener("abort", stop, { once: true });
      const done = (settle) => (value) => {
        signal?.removeEventListener("abort", stop);
        settle(value);
      };
      const refused = (error) => reject(signal?.aborted ? signal.reason : error);
      this.#waiting.set(id, { resolve: done(resolve), reject: done(refused), onBlock });
      this.#worker.postMessage({ id, task, ...content }, transfer);
    });
  }

  close() {
    this.#worker.terminate();
    this.#failed(new Error("The model was closed."));
  }

  #heard({ id, block, value, error }) {
    const { resolve, reject, onBlock } = this.#waiting.get(id) ?? {};
    if (block) return onBlock?.(block);
    this.#waiting.delete(id);
    if (error) reject?.(explained(error));
    else resolve?.(value);
  }

  #failed(error) {
    this.#ended = error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

function explained({ name, message, paths }) {
  if (!NO_MEMORY.test(message)) return Object.assign(new Error(message), { name, paths });
  return new Error("This device has too little free memory for the model: close other tabs, or make a shorter piece.");
}
