/**
 * The Fourier transform of real numbers, a power of two of them, through a complex one of half the length: Stockham's
 * algorithm in radix 4, which reverses no bits, and a last pass in radix 4 or 8, which needs no twiddle factors. It is
 * WebAssembly for one length, four numbers at a time. Complex numbers have their real and imaginary parts apart, except
 * for the bins.
 */

import { PAGE_BYTES, Routine, VECTOR, assembled } from "./assembly.js";
import { add, address, load, loadSplat, minus, mul, neg, plus, shuffle, splat, store, sub } from "./assembly.js";

const NUMBER = 4; // Bytes.
const LONGEST_LAST = 8;
/** The numbers of two vectors, 0 to 3 and 4 to 7: of both by turns, or every other one first; and backwards. */
const BY_TURNS = [0, 4, 1, 5, 2, 6, 3, 7];
const EVERY_OTHER = [0, 2, 4, 6, 1, 3, 5, 7];
const BY_TURNS_BACKWARDS = [3, 7, 2, 6, 1, 5, 0, 4];
const EVERY_OTHER_BACKWARDS = [6, 4, 2, 0, 7, 5, 3, 1];
const HALF_BY_HALF = [0, 1, 4, 5, 2, 3, 6, 7];
const BACKWARDS = [3, 2, 1, 0];

const plans = new Map();

/** Transforms of `size` real numbers, 32 or more, with bins of so many `channels`. */
export class RealFft {
  #forward;
  #inverse;
  #outReal;
  #outImaginary;

  constructor(size, channels = 1) {
    if (!plans.has(size)) plans.set(size, planOf(size / 2));
    const { module, tables, input, output, bins, end } = plans.get(size);
    const { memory, forward, inverse } = new WebAssembly.Instance(module).exports;
    [this.#forward, this.#inverse] = [forward, inverse];
    const more = (channels - 1) * (end - bins);
    memory.grow(Math.ceil(more / PAGE_BYTES));
    const numbers = (at, count) => new Float32Array(memory.buffer, at, count);
    for (const [at, values] of tables) numbers(at, values.length).set(values);
    /** What `forward` transforms, numbers at even and at odd places: written by the caller, and lost. */
    [this.even, this.odd] = [numbers(input.real, size / 2), numbers(input.imaginary, size / 2)];
    [this.#outReal, this.#outImaginary] = [numbers(output.real, size / 2), numbers(output.imaginary, size / 2)];
    /** The size / 2 + 1 bins of each channel, real and imaginary parts by turns. */
    this.bins = Array.from({ length: channels }, (_, channel) => numbers(bins + channel * (end - bins), size + 2));
  }

  /** Write the bins of a channel, those of `even` and `odd`. */
  forward(channel = 0) {
    const bins = this.bins[channel];
    this.#forward(bins.byteOffset);
    const [real, imaginary, last] = [this.#outReal[0], this.#outImaginary[0], bins.length - 2];
    [bins[0], bins[last], bins[1], bins[last + 1]] = [real + imaginary, real - imaginary, 0, 0];
  }

  /** The numbers at even and at odd places whose bins are those of a channel; they hold until the next transform. */
  inverse(channel = 0) {
    const bins = this.bins[channel];
    const [first, last, scale] = [bins[0], bins[bins.length - 2], 1 / (bins.length - 2)];
    // Real and imaginary parts change places: a forward transform then is an inverse one.
    [this.even[0], this.odd[0]] = [scale * (first - last), scale * (first + last)];
    this.#inverse(bins.byteOffset);
    return [this.#outImaginary, this.#outReal];
  }
}

/** What transforms through `count` complex numbers: a module, the tables that it reads, and where all lies. */
function planOf(count) {
  const layout = new Layout();
  let [from, to] = [layout.complex(count), layout.complex(count)];
  const [input, passes] = [from, []];
  let [length, stride] = [count, 1];
  for (; length > LONGEST_LAST; length /= 4, stride *= 4) {
    const write = stride === 1 ? firstPass : laterPass;
    passes.push({ write, from, to, length, stride, factors: layout.table(twiddleFactors(length, stride === 1)) });
    [from, to] = [to, from];
  }
  passes.push({ write: length === LONGEST_LAST ? lastPassOfEight : lastPassOfFour, from, to, length, stride });
  const [real, imaginary] = [Math.cos, Math.sin].map((part) => layout.table(halfTurns(count, part)));
  const turns = { real, imaginary };
  const bins = layout.end;
  layout.reserve(2 * count + 2);
  const [forward, inverse] = [new Routine(), new Routine()];
  passes.forEach((pass) => pass.write(forward, pass));
  binsFromPairs(forward, to, turns, count);
  pairsFromBins(inverse, input, turns, count);
  passes.forEach((pass) => pass.write(inverse, pass));
  const module = assembled({ forward, inverse }, layout.end);
  return { module, tables: layout.tables, input, output: to, bins, end: layout.end };
}

/** Where arrays lie in a memory. */
class Layout {
  end = 0;
  tables = [];

  /** The address of so many numbers. */
  reserve(count) {
    const at = this.end;
    this.end += Math.ceil((NUMBER * count) / VECTOR) * VECTOR;
    return at;
  }

  complex(count) {
    return { real: this.reserve(count), imaginary: this.reserve(count) };
  }

  table(values) {
    const at = this.reserve(values.length);
    this.tables.push([at, values]);
    return at;
  }
}

/**
 * e^(-2 pi i k p / length) of every p below length / 4: its two parts for k = 1, 2, 3 side by side, or each of these
 * six for all p together.
 */
function twiddleFactors(length, together) {
  const count = length / 4;
  const factors = new Float32Array(6 * count);
  for (let p = 0; p < count; p++) {
    for (let each = 0; each < 6; each++) {
      const angle = (2 * Math.PI * p * (Math.floor(each / 2) + 1)) / length;
      factors[together ? each * count + p : 6 * p + each] = each % 2 ? -Math.sin(angle) : Math.cos(angle);
    }
  }
  return factors;
}

/** Halves of e^(-pi i bin / count), of one part of them, up to a quarter turn. */
function halfTurns(count, part) {
  return Float32Array.from({ length: count / 2 + 1 }, (_, bin) => 0.5 * part((-Math.PI * bin) / count));
}

// --- complex vectors ---

function loaded(place, { real, imaginary }, offset = 0) {
  return { real: load(place, real + offset), imaginary: load(place, imaginary + offset) };
}

function stored(routine, place, { real, imaginary }, value, offset = 0) {
  routine.do(store(place, value.real, real + offset), store(place, value.imaginary, imaginary + offset));
}

/** A complex vector that is used more than once. */
function kept(routine, { real, imaginary }) {
  return { real: routine.vector(real), imaginary: routine.vector(imaginary) };
}

function sum(a, b) {
  return { real: add(a.real, b.real), imaginary: add(a.imaginary, b.imaginary) };
}

function difference(a, b) {
  return { real: sub(a.real, b.real), imaginary: sub(a.imaginary, b.imaginary) };
}

/** a + i b */
function sumTurned(a, b) {
  return { real: sub(a.real, b.imaginary), imaginary: add(a.imaginary, b.real) };
}

/** a - i b */
function differenceTurned(a, b) {
  return { real: add(a.real, b.imaginary), imaginary: sub(a.imaginary, b.real) };
}

function product(a, b) {
  return {
    real: sub(mul(a.real, b.real), mul(a.imaginary, b.imaginary)),
    imaginary: add(mul(a.real, b.imaginary), mul(a.imaginary, b.real)),
  };
}

/** The transform of four numbers. */
function ofFour(routine, [a, b, c, d]) {
  const [even, evenApart] = [sum(a, c), difference(a, c)].map((each) => kept(routine, each));
  const [odd, oddApart] = [sum(b, d), difference(b, d)].map((each) => kept(routine, each));
  return [sum(even, odd), differenceTurned(evenApart, oddApart), difference(even, odd), sumTurned(evenApart, oddApart)];
}

/** Two vectors of the numbers of two others, at `places`. */
function shuffled(routine, a, b, places) {
  return [places.slice(0, 4), places.slice(4)].map((half) => routine.vector(shuffle(a, b, half)));
}

/** Four vectors as rows, which are columns before. */
function transposed(routine, [a, b, c, d]) {
  const [ab, abLast] = shuffled(routine, a, b, BY_TURNS);
  const [cd, cdLast] = shuffled(routine, c, d, BY_TURNS);
  return [...shuffled(routine, ab, cd, HALF_BY_HALF), ...shuffled(routine, abLast, cdLast, HALF_BY_HALF)];
}

// --- passes ---

function firstPass(routine, { from, to, length, factors }) {
  const quarter = (NUMBER * length) / 4;
  const [place, out] = [routine.pointer(address(0)), routine.pointer(address(0))];
  routine.advance(place, address(quarter), VECTOR, () => {
    const numbers = [0, 1, 2, 3].map((each) => kept(routine, loaded(place, from, each * quarter)));
    const [first, ...others] = ofFour(routine, numbers);
    const turned = others.map((each, index) => {
      const [real, imaginary] = [0, 1].map((part) => load(place, factors + (2 * index + part) * quarter));
      return product(kept(routine, each), kept(routine, { real, imaginary }));
    });
    const results = [first, ...turned].map((each) => kept(routine, each));
    for (const part of ["real", "imaginary"]) {
      const columns = results.map((each) => each[part]);
      transposed(routine, columns).forEach((row, index) => routine.do(store(out, row, to[part] + index * VECTOR)));
    }
    routine.move(out, plus(out, address(4 * VECTOR)));
  });
}

function laterPass(routine, { from, to, length, stride, factors }) {
  const wide = NUMBER * stride;
  const quarter = (wide * length) / 4;
  const [place, out] = [routine.pointer(address(0)), routine.pointer(address(0))];
  const factor = routine.pointer(address(factors));
  routine.advance(factor, address(factors + (6 * NUMBER * length) / 4), 6 * NUMBER, () => {
    const turns = [0, 1, 2].map((each) => {
      const [real, imaginary] = [0, 1].map((part) => loadSplat(factor, NUMBER * (2 * each + part)));
      return kept(routine, { real, imaginary });
    });
    const end = routine.pointer(plus(place, address(wide)));
    routine.advance(place, end, VECTOR, () => {
      const numbers = [0, 1, 2, 3].map((each) => kept(routine, loaded(place, from, each * quarter)));
      const [first, ...others] = ofFour(routine, numbers);
      stored(routine, out, to, first);
      others.forEach((each, index) => {
        stored(routine, out, to, product(kept(routine, each), turns[index]), (index + 1) * wide);
      });
      routine.move(out, plus(out, address(VECTOR)));
    });
    routine.move(out, plus(out, address(3 * wide)));
  });
}

function lastPassOfFour(routine, { from, to, stride }) {
  const wide = NUMBER * stride;
  const place = routine.pointer(address(0));
  routine.advance(place, address(wide), VECTOR, () => {
    const numbers = [0, 1, 2, 3].map((each) => kept(routine, loaded(place, from, each * wide)));
    ofFour(routine, numbers).forEach((each, index) => stored(routine, place, to, each, index * wide));
  });
}

function lastPassOfEight(routine, { from, to, stride }) {
  const wide = NUMBER * stride;
  const place = routine.pointer(address(0));
  const eighth = routine.vector(splat(Math.SQRT1_2));
  const turned = ({ real, imaginary }) => {
    return kept(routine, { real: mul(eighth, add(real, imaginary)), imaginary: mul(eighth, sub(imaginary, real)) });
  };
  routine.advance(place, address(wide), VECTOR, () => {
    const numbers = [0, 1, 2, 3, 4, 5, 6, 7].map((each) => kept(routine, loaded(place, from, each * wide)));
    const transform = (numbers) => ofFour(routine, numbers).map((each) => kept(routine, each));
    const even = transform(numbers.filter((_, index) => index % 2 === 0));
    const odd = transform(numbers.filter((_, index) => index % 2 === 1));
    const pairs = [
      [sum, difference, odd[0]],
      [sum, difference, turned(odd[1])],
      [differenceTurned, sumTurned, odd[2]],
      [differenceTurned, sumTurned, turned(odd[3])],
    ];
    pairs.forEach(([first, second, each], index) => {
      stored(routine, place, to, first(even[index], each), index * wide);
      stored(routine, place, to, second(even[index], each), (index + 4) * wide);
    });
  });
}

// --- real numbers ---

/**
 * Do what `body` does with bins 1, 2, ... and with count - 1, count - 2, ...: {low, high} are their places among
 * complex numbers, {lowBins, highBins} those in pairs, and `turn` is half of e^(-pi i bin / count).
 */
function eachPairOfBins(routine, turns, count, body) {
  const low = routine.pointer(address(NUMBER));
  routine.advance(low, address(NUMBER * (count / 2 + 1)), VECTOR, () => {
    const high = routine.pointer(minus(address(NUMBER * (count - 3)), low));
    const inPairs = (place) => routine.pointer(plus(routine.parameter, plus(place, place)));
    const [lowBins, highBins] = [inPairs(low), inPairs(high)];
    body({ low, high, lowBins, highBins, turn: kept(routine, loaded(low, turns)) });
  });
}

/** Write the bins of real numbers, from the transform of the complex ones that they are two by two. */
function binsFromPairs(routine, from, turns, count) {
  const half = routine.vector(splat(0.5));
  eachPairOfBins(routine, turns, count, ({ low, high, lowBins, highBins, turn }) => {
    const a = kept(routine, loaded(low, from));
    const b = kept(routine, conjugate(backwards(loaded(high, from))));
    const even = kept(routine, scaled(half, sum(a, b)));
    const odd = kept(routine, product(kept(routine, difference(a, b)), turn));
    storedByTurns(routine, lowBins, differenceTurned(even, odd), BY_TURNS);
    storedByTurns(routine, highBins, conjugate(sumTurned(even, odd)), BY_TURNS_BACKWARDS);
  });
}

/** Write what the bins of real numbers are made from, as complex numbers two by two, their two parts exchanged. */
function pairsFromBins(routine, to, turns, count) {
  const [half, whole] = [0.5 / count, 1 / count].map((scale) => routine.vector(splat(scale)));
  const exchanged = { real: to.imaginary, imaginary: to.real };
  eachPairOfBins(routine, turns, count, ({ low, high, lowBins, highBins, turn }) => {
    const a = kept(routine, loadedByTurns(routine, lowBins, EVERY_OTHER));
    const b = kept(routine, conjugate(loadedByTurns(routine, highBins, EVERY_OTHER_BACKWARDS)));
    const even = kept(routine, scaled(half, sum(a, b)));
    const odd = kept(routine, product(kept(routine, scaled(whole, difference(a, b))), kept(routine, conjugate(turn))));
    stored(routine, low, exchanged, sumTurned(even, odd));
    stored(routine, high, exchanged, backwards(conjugate(differenceTurned(even, odd))));
  });
}

function conjugate({ real, imaginary }) {
  return { real, imaginary: neg(imaginary) };
}

function scaled(vector, { real, imaginary }) {
  return { real: mul(vector, real), imaginary: mul(vector, imaginary) };
}

function backwards({ real, imaginary }) {
  return { real: shuffle(real, real, BACKWARDS), imaginary: shuffle(imaginary, imaginary, BACKWARDS) };
}

/** Complex numbers whose parts lie by turns. */
function loadedByTurns(routine, place, places) {
  const [real, imaginary] = shuffled(routine, load(place), load(place, VECTOR), places);
  return { real, imaginary };
}

function storedByTurns(routine, place, { real, imaginary }, places) {
  const [first, last] = shuffled(routine, routine.vector(real), routine.vector(imaginary), places);
  routine.do(store(place, first), store(place, last, VECTOR));
}
