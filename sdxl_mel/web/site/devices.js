/** What computes the models: WebAssembly, or WebGPU where that is there, finds the same, and is faster. */

/** A module of one function, a b + c of vectors: an instruction of relaxed SIMD. */
const FUSED = Uint8Array.of(
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
  ...[1, 8, 1, 0x60, 3, 0x7b, 0x7b, 0x7b, 1, 0x7b],
  ...[3, 2, 1, 0],
  ...[10, 13, 1, 11, 0, 0x20, 0, 0x20, 1, 0x20, 2, 0xfd, 0x85, 2, 0x0b],
);
/** Of the largest number: sums in another order are off by about 1e-5 of it. */
const MOST_ERROR = 1e-3;

/** Whether this browser's WebAssembly multiplies and adds at once. */
export function hasRelaxedSimd() {
  return WebAssembly.validate(FUSED);
}

/** Whether this browser gives a page WebGPU on this device. */
export async function hasWebGpu() {
  return Boolean(await globalThis.navigator?.gpu?.requestAdapter().catch(() => null));
}

/**
 * Whether `other`, which is WebGPU, is to compute in place of `usual`, and in words what computes then: {taken, words}.
 * Each is a function a model that resolves to its numbers; of two calls the second is timed, as the first makes ready.
 */
export async function compared(usual, other) {
  let [before, after] = [0, 0];
  for (const [index, compute] of other.entries()) {
    const [wanted, seconds] = await timed(usual[index]);
    const [found, otherSeconds] = await timed(compute);
    const error = relativeError(found, wanted);
    if (!(error <= MOST_ERROR)) return { taken: false, words: "WebAssembly: WebGPU finds other numbers here" };
    [before, after] = [before + seconds, after + otherSeconds];
  }
  const times = (ratio) => `${ratio.toFixed(1)} times as fast here as`;
  if (after < before) return { taken: true, words: `WebGPU, ${times(before / after)} WebAssembly` };
  return { taken: false, words: `WebAssembly, ${times(after / before)} WebGPU` };
}

async function timed(compute) {
  await compute();
  const start = performance.now();
  const found = await compute();
  return [found, performance.now() - start];
}

function relativeError(found, wanted) {
  if (found.length !== wanted.length) return Infinity;
  let [largest, off] = [0, 0];
  for (let at = 0; at < wanted.length; at++) {
    largest = Math.max(largest, Math.abs(wanted[at]));
    off = Math.max(off, Math.abs(found[at] - wanted[at])); // NaN stays NaN.
  }
  return off / largest;
}
