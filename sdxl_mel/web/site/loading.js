/** The files of an exported site: fetched part by part or taken from the page itself, and checked by their SHA-256. */

import { digestOf } from "./sha256.js";

const MANIFEST = "manifest.json";
const FORMAT = 1;

/** A file that is not there or not what the manifest says; `paths` are those to be loaded again. */
export class FileError extends Error {
  constructor(paths, reason) {
    super(`${paths[0]} ${reason}: load the page again.`);
    this.paths = paths;
  }
}

/** Reads the files of one site: those beside its manifest, or with `read` (path) those that the page carries. */
export class SiteFiles {
  #base;
  #read;

  constructor(manifestUrl, read = null) {
    this.#base = new URL(".", new URL(manifestUrl, globalThis.location?.href));
    this.#read = read;
  }

  /** The manifest. Throws an Error for one of another format. */
  async manifest() {
    const manifest = JSON.parse(new TextDecoder().decode(await this.#bytes(MANIFEST, { cache: "no-cache" })));
    if (manifest.format !== FORMAT) {
      throw new Error(`The models have format ${manifest.format}, this page reads ${FORMAT}: export them again.`);
    }
    return manifest;
  }

  /**
   * The bytes of a file of the manifest; `onBytes` is given how many more have come. Throws FileError for one that is
   * missing or damaged.
   */
  async load(file, { signal, onBytes = () => {} } = {}) {
    const content = new Uint8Array(file.bytes);
    let at = 0;
    for (const part of this.#read ? [file.path] : file.parts) {
      at = await this.#fill(content, at, part, { packed: Boolean(file.packed), signal, onBytes });
    }
    if (at !== file.bytes || (await digestOf(content)) !== file.sha256) throw new FileError(file.parts, "is damaged");
    return content;
  }

  /**
   * Where a worker finds a file that is whole: its address, or its bytes where it is packed, in parts or in the page.
   * What this browser keeps is not read for it.
   */
  async place(file, options) {
    if (this.#read || file.packed || file.parts.length > 1) return this.load(file, options);
    if (await this.#keeps(file)) options.onBytes(file.bytes);
    else await this.load(file, options);
    return new URL(file.parts[0], this.#base).href;
  }

  /** Have the service worker keep a file that may be wanted without a network. */
  async keep(file) {
    if (this.#read || (await this.#keeps(file))) return;
    for (const part of file.parts) await (await this.#response(part, {})).body.pipeTo(new WritableStream());
  }

  async #keeps(file) {
    const kept = file.parts.map((part) => globalThis.caches?.match(new URL(part, this.#base)).catch(() => null));
    return (await Promise.all(kept)).every(Boolean);
  }

  async #fill(content, at, path, { packed, signal, onBytes }) {
    if (this.#read) {
      const bytes = await this.#read(path);
      content.set(bytes.subarray(0, content.length - at), at);
      onBytes(bytes.length);
      return at + bytes.length;
    }
    const reader = contentOf(await this.#response(path, { signal }), packed).getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return at;
        content.set(value.subarray(0, content.length - at), at);
        at += value.length;
        onBytes(value.length);
      }
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw new FileError([path], `${packed ? "is damaged or " : ""}broke off (${error.message})`);
    }
  }

  async #bytes(path, options) {
    if (this.#read) return this.#read(path);
    return new Uint8Array(await (await this.#response(path, options)).arrayBuffer());
  }

  async #response(path, options) {
    let response;
    try {
      response = await fetch(new URL(path, this.#base), options);
    } catch (error) {
      if (options.signal?.aborted) throw options.signal.reason;
      throw new FileError([path], "does not come; is there a connection?");
    }
    if (!response.ok) throw new FileError([path], `is missing (${response.status})`);
    return response;
  }
}

/** What a response brings: a packed part is gzip, unless the service worker has kept it unpacked, and says so. */
function contentOf({ body, headers }, packed) {
  return packed && !headers.has("Unpacked") ? body.pipeThrough(new DecompressionStream("gzip")) : body;
}
