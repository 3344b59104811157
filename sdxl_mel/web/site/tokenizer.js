/** CLIP's byte-level BPE, of a tokenizer.json as the tokenizers library applies it. */

const WORD = /<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;
const SPACES = /\p{White_Space}+/gu;
const [TEXT_START, TEXT_END, WORD_END] = ["<|startoftext|>", "<|endoftext|>", "</w>"];

/** Tokens that a text encoder reads of a text, its start and end among them. */
export const TOKENS = 77;

/** Letters for the 256 bytes: printable ones for themselves, the others from U+0100 on (GPT-2, encoder.py). */
function byteLetters() {
  const printable = (byte) => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

/** A tokenizer that fills up what a text leaves of the tokens with `padding`. */
export class Tokenizer {
  #letters = byteLetters();
  #words = new Map();
  #vocabulary;
  #ranks;
  #added;
  #addedPattern;

  constructor({ model, added_tokens: added }, padding = TEXT_END) {
    this.#vocabulary = new Map(Object.entries(model.vocab));
    const pairs = model.merges.map((pair) => (Array.isArray(pair) ? pair.join(" ") : pair));
    this.#ranks = new Map(pairs.map((pair, rank) => [pair, rank]));
    this.#added = new Map(added.map(({ content, id }) => [content, id]));
    const escaped = [...this.#added.keys()].map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.#addedPattern = new RegExp(`(${escaped.join("|")})`, "u");
    const idOf = (text) => this.#added.get(text) ?? this.#vocabulary.get(text);
    this.start = idOf(TEXT_START);
    this.end = idOf(TEXT_END);
    this.unknown = idOf(model.unk_token);
    this.padding = idOf(padding);
  }

  /** The ids of a text alone. */
  tokens(text) {
    // Added tokens are found in the text as it is given.
    return text.split(this.#addedPattern).flatMap((part) => {
      if (this.#added.has(part)) return [this.#added.get(part)];
      const spaced = part.normalize("NFC").replace(SPACES, " ");
      // Letter by letter: as a string, a sigma at the end of a word would become another one.
      const plain = Array.from(spaced, (letter) => letter.toLowerCase()).join("");
      return (plain.match(WORD) ?? []).flatMap((word) => this.#tokensOf(word));
    });
  }

  /** The TOKENS ids that a text encoder reads: start, what fits of the text, end and padding. */
  encode(text) {
    const ids = [this.start, ...this.tokens(text).slice(0, TOKENS - 2), this.end];
    return Array.from({ length: TOKENS }, (_, place) => ids[place] ?? this.padding);
  }

  #tokensOf(word) {
    if (!this.#words.has(word)) {
      this.#words.set(word, this.#merged(word).map((part) => this.#vocabulary.get(part) ?? this.unknown));
    }
    return this.#words.get(word);
  }

  #merged(word) {
    const parts = Array.from(new TextEncoder().encode(word), (byte) => this.#letters[byte]);
    parts[parts.length - 1] += WORD_END;
    for (;;) {
      let [best, place] = [Infinity, -1];
      for (let at = 0; at + 1 < parts.length; at++) {
        const rank = this.#ranks.get(`${parts[at]} ${parts[at + 1]}`) ?? Infinity;
        if (rank < best) [best, place] = [rank, at];
      }
      if (place < 0) return parts;
      parts.splice(place, 2, parts[place] + parts[place + 1]);
    }
  }
}
