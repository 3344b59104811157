/**
 * Prompts as `generate` reads them: the anchor before them, words with weights, `(banjo:1.3)`, and what is longer than
 * the encoders read in chunks: sdxl_mel/captions/anchor.py, weights.py and sdxl_mel/synthesis/prompting.py.
 */

import { TOKENS } from "./tokenizer.js";

const MOST_TOKENS = TOKENS - 2; // The first and the last are the encoders' own.
const PHRASE = /[^,]*,?\s*/g;
const ESCAPED = "\\( and \\) are brackets themselves";
const WEIGHT = /:\s*(\d+(?:\.\d+)?)\s*\)/y;
const ANY_WEIGHT = /\([^()]*:\s*\d|:\s*\d+(?:\.\d+)?\s*\)/;

/** `anchor, prompt`, the anchor once, wherever and however often it stands in the prompt. */
export function anchored(prompt, anchor) {
  return [anchor.trim(), withoutAnchor(prompt, anchor)].filter(Boolean).join(", ");
}

function withoutAnchor(prompt, anchor) {
  if (!anchor.trim()) return prompt;
  const escaped = anchor.trim().replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const pattern = new RegExp(`(?<![\\p{L}\\p{N}_])${escaped}(?![\\p{L}\\p{N}_])\\s*[,:;]?\\s*`, "giu");
  const left = prompt.replace(pattern, "").replace(/(?:,\s*)+,/g, ",").replace(/\s+/g, " ");
  return left.replace(/^[ ,;:]+|[ ,;:]+$/g, "");
}

/**
 * The spans {text, weight} of a prompt: `(banjo:1.3)` weighs 1.3, inside of each other they multiply, `\(` is a
 * bracket. Brackets of a prompt in which none has a weight are words. Throws an Error where they do not match.
 */
export function parseWeights(prompt) {
  if (!ANY_WEIGHT.test(prompt)) return [{ text: prompt, weight: 1 }];
  const open = [[]]; // The letters of every bracket that is open, the outermost being the prompt itself.
  for (let at = 0; at < prompt.length; at++) {
    WEIGHT.lastIndex = at;
    const weight = WEIGHT.exec(prompt);
    if (prompt[at] === "(") {
      open.push([]);
    } else if (prompt[at] === ")" || (weight && open.length > 1)) {
      const letters = open.pop();
      if (!open.length) throw new Error(`“${prompt}”: a bracket closes that was not opened; ${ESCAPED}.`);
      const factor = weight ? Number(weight[1]) : 1;
      open.at(-1).push(...letters.map((letter) => ({ ...letter, weight: letter.weight * factor })));
      if (weight) at += weight[0].length - 1;
    } else {
      if (prompt[at] === "\\" && "()".includes(prompt[at + 1] ?? " ")) at++;
      open.at(-1).push({ text: prompt[at], weight: 1 });
    }
  }
  if (open.length > 1) throw new Error(`“${prompt}”: a bracket is not closed; write (words:1.3), ${ESCAPED}.`);
  const spans = [];
  for (const { text, weight } of open[0]) {
    if (spans.at(-1)?.weight === weight) spans.at(-1).text += text;
    else spans.push({ text, weight });
  }
  return spans;
}

/**
 * Spans in chunks that the encoders read one by one: whole phrases (to a comma), and words of a phrase that is longer
 * than a chunk. `count` counts the tokens of a text.
 */
export function chunked(spans, count) {
  const chunks = [[]];
  for (const { text, weight } of spans) {
    for (const piece of text.match(PHRASE).flatMap((phrase) => piecesOf(phrase, count))) {
      const before = textOf(chunks.at(-1));
      if (before.trim() && count(before + piece) > MOST_TOKENS) chunks.push([]);
      chunks.at(-1).push({ text: piece, weight });
    }
  }
  return chunks;
}

function piecesOf(phrase, count) {
  return count(phrase) <= MOST_TOKENS ? [phrase] : (phrase.match(/\S+\s*/g) ?? []);
}

/** The words of spans without their weights. */
export function textOf(spans) {
  return spans.map(({ text }) => text).join("");
}

/** The weight of each of the TOKENS tokens that the encoders read of some spans. */
export function tokenWeights(spans, count) {
  const weights = new Float32Array(TOKENS).fill(1);
  let before = "";
  for (const { text, weight } of spans) {
    const first = 1 + count(before); // One token, the start of the text, stands before them.
    before += text;
    weights.fill(weight, first, 1 + count(before));
  }
  return weights;
}
