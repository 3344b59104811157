/** Randomness as sdxl_mel/seeding.py has it: every draw is a pure function of a seed and of what is drawn. */

import { Sha256 } from "./sha256.js";

const STATE_WORDS = 624;
const FAR_WORDS = 397;
const NORMALS_AT_ONCE = 16;

/** A 63-bit seed (BigInt) that depends on `seed` and on every part of `what`; numbers are whole. */
export function deriveSeed(seed, ...what) {
  const named = (part) => (typeof part === "string" ? `str:${part}` : `int:${BigInt(part)}`);
  const text = [seed, ...what].map(named).join("\x1f");
  const digest = new Sha256().update(new TextEncoder().encode(text)).digest();
  return new DataView(digest.buffer).getBigUint64(0) >> 1n;
}

/** torch's generator on the CPU for one named draw: the Mersenne Twister (Matsumoto and Nishimura 1998). */
export class TorchGenerator {
  #state = new Uint32Array(STATE_WORDS);
  #at = STATE_WORDS;

  constructor(seed, ...what) {
    const state = this.#state;
    state[0] = Number(deriveSeed(seed, ...what) & 0xffffffffn);
    for (let i = 1; i < STATE_WORDS; i++) {
      state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
    }
  }

  /** The next 32 bits. */
  next() {
    if (this.#at === STATE_WORDS) this.#twist();
    let word = this.#state[this.#at++];
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    word ^= word >>> 18;
    return word >>> 0;
  }

  /** torch.rand: `count` numbers of 24 bits in 0..1. */
  uniform(count) {
    return Float32Array.from({ length: count }, () => (this.next() & 0xffffff) / 2 ** 24);
  }

  /** torch.randint: one whole number from `low` to below `high`. */
  integer(low, high) {
    return low + (this.next() % (high - low));
  }

  /** torch.randn of 16 numbers and more (Box and Muller 1958, eight pairs at a time). */
  normal(count) {
    const numbers = this.uniform(count);
    let start = 0;
    for (; start + NORMALS_AT_ONCE <= count; start += NORMALS_AT_ONCE) toNormal(numbers, start);
    if (start < count) {
      // The last sixteen are drawn again where the count is no multiple of them.
      numbers.set(this.uniform(NORMALS_AT_ONCE), count - NORMALS_AT_ONCE);
      toNormal(numbers, count - NORMALS_AT_ONCE);
    }
    return numbers;
  }

  #twist() {
    const state = this.#state;
    for (let i = 0; i < STATE_WORDS; i++) {
      const word = (state[i] & 0x80000000) | (state[(i + 1) % STATE_WORDS] & 0x7fffffff);
      state[i] = state[(i + FAR_WORDS) % STATE_WORDS] ^ (word >>> 1) ^ (word & 1 ? 0x9908b0df : 0);
    }
    this.#at = 0;
  }
}

function toNormal(numbers, start) {
  const half = NORMALS_AT_ONCE / 2;
  for (let at = start; at < start + half; at++) {
    const radius = Math.sqrt(-2 * Math.log(Math.fround(1 - numbers[at])));
    const angle = 2 * Math.PI * numbers[at + half];
    numbers[at] = radius * Math.cos(angle);
    numbers[at + half] = radius * Math.sin(angle);
  }
}

/** The noise (`count` numbers) that a drawing of this seed begins with. */
export function drawNoise(seed, count) {
  return new TorchGenerator(seed, "noise").normal(count);
}
