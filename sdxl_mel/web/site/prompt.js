/**
 * Prompts as `generate` reads them: the anchor before them, and words with weights, `(banjo:1.3)`:
 * sdxl_mel/captions/anchor.py and weights.py.
 */

import { TOKENS } from "./tokenizer.js";

const MOST_TOKENS = TOKENS - 2; // The first and the last are the encoders' own.
const PHRASE_END = /[,;.!?]+\s+|\s+[-–]\s+/g;
const ESCAPED = "\\( and \\) are brackets themselves";
const OUTER_SIGNS = " ,;.!?-–";
const WEIGHT = /:\s*(\d+(?:\.\d+)?)\s*\)/y;
const ANY_WEIGHT = /\([^()]*:\s*\d|:\s*\d+(?:\.\d+)?\s*\)/;

/**
 * {text, kept, dropped}: `anchor, prompt` within what the encoders read, what is kept of the prompt, and what is not.
 * A prompt too long loses its weights and its last phrases, again and again until it fits, a single phrase its last
 * words. `count` counts the tokens of a text.
 */
export function fittedPrompt(prompt, anchor, count) {
  const whole = withoutAnchor(prompt, anchor);
  const text = withAnchor(anchor, whole);
  if (count(plainPrompt(text)) <= MOST_TOKENS) return { text, kept: prompt, dropped: "" };
  const plain = plainPrompt(whole);
  let kept = plain;
  while (kept && count(withAnchor(anchor, kept)) > MOST_TOKENS) kept = shortened(kept);
  const dropped = plain.slice(kept.length).replace(/^[ ,;.\-–]+|[ ,;.\-–]+$/g, "");
  return { text: withAnchor(anchor, kept), kept, dropped };
}

function withAnchor(anchor, prompt) {
  return [anchor.trim(), prompt].filter(Boolean).join(", ");
}

/** A prompt without the anchor, wherever and however often it stands in it. */
function withoutAnchor(prompt, anchor) {
  if (!anchor.trim()) return prompt;
  const escaped = anchor.trim().replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const pattern = new RegExp(`(?<![\\p{L}\\p{N}_])${escaped}(?![\\p{L}\\p{N}_])\\s*[,:;]?\\s*`, "giu");
  const left = prompt.replace(pattern, "").replace(/(?:,\s*)+,/g, ",").replace(/\s+/g, " ");
  return left.replace(/^[ ,;:]+|[ ,;:]+$/g, "");
}

function shortened(prompt) {
  let end = prompt.length;
  while (OUTER_SIGNS.includes(prompt[end - 1])) end--;
  const last = [...prompt.slice(0, end).matchAll(PHRASE_END)].at(-1);
  return last ? prompt.slice(0, last.index) : prompt.trim().split(/\s+/).slice(0, -1).join(" ");
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

/** The words of a prompt without its weights. */
export function plainPrompt(prompt) {
  return parseWeights(prompt).map(({ text }) => text).join("");
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
