/** Two workers on one picture: each makes the sound of its half, and they exchange what both halves share. */

/** The worker with the other half, at the other end of a port. */
export class Neighbour {
  #port;
  #come = [];
  #waiting = null;

  /** `before` says whether the other half comes first in the picture. */
  constructor(port, before) {
    this.before = before;
    this.#port = port;
    port.onmessage = ({ data }) => {
      if (this.#waiting) this.#waiting(data);
      else this.#come.push(data);
      this.#waiting = null;
    };
  }

  /** Send numbers, and resolve to those that the neighbour sends. Throws an AbortError where it has stopped. */
  async exchange(numbers) {
    this.#port.postMessage(numbers);
    const theirs = this.#come.length ? this.#come.shift() : await new Promise((resolve) => (this.#waiting = resolve));
    if (theirs === null) throw new DOMException("the other half was stopped", "AbortError");
    return theirs;
  }

  /** Let the neighbour not wait any more. */
  leave() {
    this.#port.postMessage(null);
  }
}
