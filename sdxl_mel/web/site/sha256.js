/** SHA-256 (FIPS 180-4): pages that are not served over https have no crypto.subtle. */

const WORDS_A_BLOCK = 16;
const BLOCK_BYTES = 64;
const LENGTH_BYTES = 8;
const ROUNDS = 64;
const [ROUND_WORDS, START_WORDS] = constants();

/** The first 32 bits of the fractions of the cube roots of the first 64 primes, and of the square roots of eight. */
function constants() {
  const primes = [];
  for (let number = 2; primes.length < ROUNDS; number++) {
    if (primes.every((prime) => number % prime)) primes.push(number);
  }
  const fraction = (number) => ((number - Math.floor(number)) * 2 ** 32) | 0;
  const roots = (root, count) => Int32Array.from(primes.slice(0, count), (prime) => fraction(root(prime)));
  return [roots(Math.cbrt, ROUNDS), roots(Math.sqrt, 8)];
}

/** The digest of bytes, which may come in pieces. */
export class Sha256 {
  #state = START_WORDS.slice();
  #words = new Int32Array(ROUNDS);
  #rest = new Uint8Array(BLOCK_BYTES);
  #length = 0;

  /** Add bytes. */
  update(bytes) {
    let at = 0;
    for (let held = this.#length % BLOCK_BYTES; at < bytes.length; held = 0) {
      const taken = Math.min(BLOCK_BYTES - held, bytes.length - at);
      if (taken === BLOCK_BYTES) {
        this.#block(bytes, at);
      } else {
        this.#rest.set(bytes.subarray(at, at + taken), held);
        if (held + taken === BLOCK_BYTES) this.#block(this.#rest, 0);
      }
      at += taken;
      this.#length += taken;
    }
    return this;
  }

  /** The 32 bytes of the digest; nothing can be added afterwards. */
  digest() {
    const bits = this.#length * 8;
    const zeros = (2 * BLOCK_BYTES - LENGTH_BYTES - 1 - (this.#length % BLOCK_BYTES)) % BLOCK_BYTES;
    const end = new DataView(new ArrayBuffer(1 + zeros + LENGTH_BYTES));
    end.setUint8(0, 0x80);
    end.setUint32(1 + zeros, Math.floor(bits / 2 ** 32));
    end.setUint32(5 + zeros, bits % 2 ** 32);
    this.update(new Uint8Array(end.buffer));
    const result = new DataView(new ArrayBuffer(4 * this.#state.length));
    this.#state.forEach((word, index) => result.setInt32(4 * index, word));
    return new Uint8Array(result.buffer);
  }

  #block(bytes, at) {
    const [state, words] = [this.#state, this.#words];
    for (let i = 0; i < WORDS_A_BLOCK; i++, at += 4) {
      words[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
    }
    for (let i = WORDS_A_BLOCK; i < ROUNDS; i++) {
      const [early, late] = [words[i - 15], words[i - 2]];
      const mixed = rotated(early, 7) ^ rotated(early, 18) ^ (early >>> 3);
      words[i] = words[i - 16] + mixed + words[i - 7] + (rotated(late, 17) ^ rotated(late, 19) ^ (late >>> 10));
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < ROUNDS; i++) {
      const chosen = (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + ((e & f) ^ (~e & g));
      const major = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      const next = (h + chosen + ROUND_WORDS[i] + words[i]) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + next) | 0;
      d = c;
      c = b;
      b = a;
      a = (next + major) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((word, index) => (state[index] += word));
  }
}

function rotated(word, bits) {
  return (word >>> bits) | (word << (32 - bits));
}

/** The digest of bytes as people write it, made by the browser where it may. */
export async function digestOf(content) {
  if (globalThis.crypto?.subtle) return hexadecimal(new Uint8Array(await crypto.subtle.digest("SHA-256", content)));
  return hexadecimal(new Sha256().update(content).digest());
}

function hexadecimal(digest) {
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
