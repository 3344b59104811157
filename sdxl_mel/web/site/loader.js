/** The files of a site by a worker that only loads: what that leaves in memory goes with the worker. */

/** Loads as SiteFiles does, of the site of a manifest; `hire` starts a worker, which lives while anything is loaded. */
export class Loader {
  #manifestUrl;
  #hire;
  #crewman = null;
  #asked = 0;

  constructor(manifestUrl, hire) {
    [this.#manifestUrl, this.#hire] = [manifestUrl, hire];
  }

  load(file, options) {
    return this.#ask("load", file, options);
  }

  place(file, options) {
    return this.#ask("place", file, options);
  }

  async keep(file) {
    if (globalThis.navigator?.serviceWorker?.controller) await this.#ask("keep", file);
  }

  async #ask(how, file, { signal, onBytes } = {}) {
    this.#crewman ??= this.#hire();
    this.#asked++;
    try {
      return await this.#crewman.do("file", { manifestUrl: this.#manifestUrl, how, file }, { signal, onBlock: onBytes });
    } finally {
      if (--this.#asked === 0) {
        this.#crewman.close();
        this.#crewman = null;
      }
    }
  }
}
