/** What was made, in the browser's own database: it is there again after the page was closed or its tab was killed. */

const VERSION = 1;
const STORE = "sounds";

/**
 * Records {id, when, settings, seconds, command, starred, picture, sound}: `picture` and `sound` are Blobs, absent of
 * one whose drawing has not ended. A browser that stores nothing keeps them until the page is closed.
 */
export class History {
  #database = null;
  #kept = new Map();

  /** Open the history of one site; `problem` is a sentence where the browser does not store it. */
  static async open(name) {
    const history = new History();
    try {
      history.#database = await opened(name);
    } catch {
      history.problem = "This browser stores nothing for this page: sounds are here until it is closed.";
    }
    return history;
  }

  /** All records, the newest first. */
  async all() {
    const stored = this.#database ? await this.#ask("readonly", (store) => store.getAll()) : [];
    const records = new Map([...stored.map((record) => [record.id, record]), ...this.#kept]);
    return [...records.values()].sort((one, other) => other.when - one.when);
  }

  /** Keep a record, new or changed. Throws an Error with one sentence where there is no room for it. */
  async put(record) {
    if (!this.#database) return void this.#kept.set(record.id, record);
    try {
      await this.#ask("readwrite", (store) => store.put(record));
      this.#kept.delete(record.id);
    } catch (error) {
      this.#kept.set(record.id, record);
      throw new Error(
        `The browser has no room for this sound (${error.name}); it is here until the page is closed. Delete older ones.`,
      );
    }
  }

  /** Remove a record. */
  async remove(id) {
    this.#kept.delete(id);
    if (this.#database) await this.#ask("readwrite", (store) => store.delete(id));
  }

  async #ask(mode, act) {
    const transaction = this.#database.transaction(STORE, mode, { durability: "strict" });
    const request = act(transaction.objectStore(STORE));
    await new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onerror = transaction.onabort = () => reject(transaction.error ?? request.error);
    });
    return request.result;
  }
}

function opened(name) {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, VERSION);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = request.onblocked = () => reject(request.error);
  });
}
