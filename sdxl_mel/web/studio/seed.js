/** The field of a seed, with dice for another one, and a lock that keeps it. */

import { element } from "../elements.js";
import { icon, iconButton } from "../icons.js";
import { labelled } from "./controls.js";

const MOST_SEED = 2 ** 31;

/** A seed by chance. */
export function anySeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0] % MOST_SEED;
}

/** The field; `changed` is called where the seed became another one by the dice. */
export class SeedField {
  #input = element("input", {
    type: "number",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    step: 1,
    value: "0",
    required: true,
  });
  #lock = iconButton("unlocked", "Keep this seed", () => this.#toggle(), { "aria-pressed": "false" });
  #changed;

  constructor(changed) {
    this.#changed = changed;
    this.node = labelled("Seed", this.#input, "the same seed and settings make the same sound");
    this.#input.after(
      iconButton("dice", "Another seed", () => this.roll()),
      this.#lock,
    );
    this.node.classList.add("seeds");
  }

  get value() {
    return Number(this.#input.value);
  }

  set value(seed) {
    this.#input.value = seed;
  }

  /** Whether the seed stays as it is when something is made. */
  get locked() {
    return this.#lock.getAttribute("aria-pressed") === "true";
  }

  /** Take another seed. */
  roll() {
    this.value = anySeed();
    this.#changed();
  }

  #toggle() {
    const locked = !this.locked;
    this.#lock.setAttribute("aria-pressed", String(locked));
    this.#lock.innerHTML = icon(locked ? "locked" : "unlocked");
  }
}
