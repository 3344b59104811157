/** The model of the page: opened once, in the background, and again after a failure. */

import { forget } from "./offline.js";
import { open } from "./engine.js";

/** Events: `progress` (detail: {loaded, total}), `ready`, `device` (detail: words), `failed` (detail: the Error). */
export class Model extends EventTarget {
  #source;
  #engine = null;
  #lora = null;

  /** `source` is {manifestUrl, manifest, worker, read}, as the engine's `open` takes them. */
  constructor(source) {
    super();
    this.#source = source;
  }

  /** The engine, once it is open. Throws the Error that kept it from opening; the next call tries again. */
  get engine() {
    this.#engine ??= this.#open();
    return this.#engine;
  }

  /** Draw with another LoRA from now on, a .safetensors file. */
  async exchangeLora(file) {
    const engine = await this.engine;
    await engine.setLora(file);
    this.#lora = file;
  }

  /** Give up an engine that failed: the next drawing opens another. */
  async close() {
    const engine = await this.#engine?.catch(() => null);
    this.#engine = null;
    engine?.close();
  }

  async #open() {
    const { manifestUrl, ...given } = this.#source;
    const told = (name) => (detail) => this.dispatchEvent(new CustomEvent(name, { detail }));
    const [onProgress, onDevice] = [told("progress"), told("device")];
    try {
      const engine = await open(manifestUrl, { ...given, onProgress, onDevice });
      if (this.#lora) await engine.setLora(this.#lora);
      this.dispatchEvent(new Event("ready"));
      return engine;
    } catch (error) {
      this.#engine = null;
      for (const path of error.paths ?? []) await forget(path);
      this.dispatchEvent(new CustomEvent("failed", { detail: error }));
      throw error;
    }
  }
}
