/**
 * The Fourier transform of real numbers, a power of two of them, through a complex one of half the length: Stockham's
 * algorithm in radix 4, which reverses no bits, and a last pass in radix 4 or 8, which needs no twiddle factors.
 * Complex numbers lie in pairs of reals.
 */

const EIGHTH_TURN = Math.SQRT1_2;
const LONGEST_LAST = 8;

/** Transforms of `size` real numbers, 32 or more. */
export class RealFft {
  #half;
  #passes = [];
  #last;
  #turns;
  #other;

  constructor(size) {
    this.#half = size / 2;
    /** What `forward` transforms, written here by the caller; it is lost. */
    this.input = new Float64Array(size);
    this.#other = new Float64Array(size);
    let length = this.#half;
    for (; length > LONGEST_LAST; length /= 4) this.#passes.push({ length, factors: twiddleFactors(length) });
    this.#last = length === LONGEST_LAST ? lastPassOfEight : lastPassOfFour;
    this.#turns = new Float64Array(size);
    for (let bin = 0; bin < this.#half; bin++) {
      this.#turns[2 * bin] = 0.5 * Math.cos((Math.PI * bin) / this.#half);
      this.#turns[2 * bin + 1] = 0.5 * Math.sin((Math.PI * bin) / this.#half);
    }
  }

  /** Write the size / 2 + 1 bins of `input` to `bins`. */
  forward(bins) {
    const turns = this.#turns;
    const z = this.#transform();
    const end = 2 * this.#half;
    bins[0] = z[0] + z[1];
    bins[end] = z[0] - z[1];
    bins[1] = bins[end + 1] = 0;
    for (let low = 2, high = end - 2; low <= high; low += 2, high -= 2) {
      const ar = z[low];
      const ai = z[low + 1];
      const br = z[high];
      const bi = z[high + 1];
      const evenReal = 0.5 * (ar + br);
      const evenImaginary = 0.5 * (ai - bi);
      const oddReal = turns[low] * (ai + bi) + turns[low + 1] * (br - ar);
      const oddImaginary = turns[low] * (br - ar) - turns[low + 1] * (ai + bi);
      bins[low] = evenReal + oddReal;
      bins[low + 1] = evenImaginary + oddImaginary;
      bins[high] = evenReal - oddReal;
      bins[high + 1] = oddImaginary - evenImaginary;
    }
  }

  /** The numbers whose bins are `bins`, each two of them in the other order: number i at index i ^ 1. */
  inverse(bins) {
    const turns = this.#turns;
    const z = this.input;
    const end = 2 * this.#half;
    const scale = 1 / this.#half;
    const half = 0.5 * scale;
    // Real and imaginary parts change places: a forward transform then is an inverse one.
    z[1] = half * (bins[0] + bins[end]);
    z[0] = half * (bins[0] - bins[end]);
    for (let low = 2, high = end - 2; low <= high; low += 2, high -= 2) {
      const ar = bins[low];
      const ai = bins[low + 1];
      const br = bins[high];
      const bi = bins[high + 1];
      const evenReal = half * (ar + br);
      const evenImaginary = half * (ai - bi);
      const oddReal = scale * (turns[low] * (ar - br) - turns[low + 1] * (ai + bi));
      const oddImaginary = scale * (turns[low] * (ai + bi) + turns[low + 1] * (ar - br));
      z[low + 1] = evenReal - oddImaginary;
      z[low] = evenImaginary + oddReal;
      z[high + 1] = evenReal + oddImaginary;
      z[high] = oddReal - evenImaginary;
    }
    return this.#transform();
  }

  /** The complex transform of `input`, in a buffer that holds it until the next one. */
  #transform() {
    let [from, to] = [this.input, this.#other];
    let stride = 1;
    for (const { length, factors } of this.#passes) {
      if (stride === 1) firstPass(from, to, length, factors);
      else laterPass(from, to, length, stride, factors);
      stride *= 4;
      [from, to] = [to, from];
    }
    this.#last(from, to, this.#half);
    return to;
  }
}

/** e^(-2 pi i k p / length) for k = 1, 2, 3 side by side, of every p below length / 4. */
function twiddleFactors(length) {
  const factors = new Float64Array((6 * length) / 4);
  for (let at = 0; at < factors.length; at += 2) {
    const angle = (2 * Math.PI * Math.floor(at / 6) * ((at % 6) / 2 + 1)) / length;
    factors[at] = Math.cos(angle);
    factors[at + 1] = -Math.sin(angle);
  }
  return factors;
}

function firstPass(x, y, length, factors) {
  const far = length / 2;
  for (let a = 0, f = 0, o = 0; a < far; a += 2, f += 6, o += 8) {
    const b = a + far;
    const c = b + far;
    const d = c + far;
    const sumReal = x[a] + x[c];
    const sumImaginary = x[a + 1] + x[c + 1];
    const differenceReal = x[a] - x[c];
    const differenceImaginary = x[a + 1] - x[c + 1];
    const otherReal = x[b] + x[d];
    const otherImaginary = x[b + 1] + x[d + 1];
    const crossReal = x[b] - x[d];
    const crossImaginary = x[b + 1] - x[d + 1];
    y[o] = sumReal + otherReal;
    y[o + 1] = sumImaginary + otherImaginary;
    let real = differenceReal + crossImaginary;
    let imaginary = differenceImaginary - crossReal;
    y[o + 2] = real * factors[f] - imaginary * factors[f + 1];
    y[o + 3] = real * factors[f + 1] + imaginary * factors[f];
    real = sumReal - otherReal;
    imaginary = sumImaginary - otherImaginary;
    y[o + 4] = real * factors[f + 2] - imaginary * factors[f + 3];
    y[o + 5] = real * factors[f + 3] + imaginary * factors[f + 2];
    real = differenceReal - crossImaginary;
    imaginary = differenceImaginary + crossReal;
    y[o + 6] = real * factors[f + 4] - imaginary * factors[f + 5];
    y[o + 7] = real * factors[f + 5] + imaginary * factors[f + 4];
  }
}

function laterPass(x, y, length, stride, factors) {
  const wide = 2 * stride;
  const far = (wide * length) / 4;
  for (let p = 0, f = 0, a = 0, o = 0; p < length / 4; p++, f += 6, o += 3 * wide) {
    const cosine1 = factors[f];
    const sine1 = factors[f + 1];
    const cosine2 = factors[f + 2];
    const sine2 = factors[f + 3];
    const cosine3 = factors[f + 4];
    const sine3 = factors[f + 5];
    for (const end = a + wide; a < end; a += 2, o += 2) {
      const b = a + far;
      const c = b + far;
      const d = c + far;
      const sumReal = x[a] + x[c];
      const sumImaginary = x[a + 1] + x[c + 1];
      const differenceReal = x[a] - x[c];
      const differenceImaginary = x[a + 1] - x[c + 1];
      const otherReal = x[b] + x[d];
      const otherImaginary = x[b + 1] + x[d + 1];
      const crossReal = x[b] - x[d];
      const crossImaginary = x[b + 1] - x[d + 1];
      y[o] = sumReal + otherReal;
      y[o + 1] = sumImaginary + otherImaginary;
      let real = differenceReal + crossImaginary;
      let imaginary = differenceImaginary - crossReal;
      let to = o + wide;
      y[to] = real * cosine1 - imaginary * sine1;
      y[to + 1] = real * sine1 + imaginary * cosine1;
      real = sumReal - otherReal;
      imaginary = sumImaginary - otherImaginary;
      to += wide;
      y[to] = real * cosine2 - imaginary * sine2;
      y[to + 1] = real * sine2 + imaginary * cosine2;
      real = differenceReal - crossImaginary;
      imaginary = differenceImaginary + crossReal;
      to += wide;
      y[to] = real * cosine3 - imaginary * sine3;
      y[to + 1] = real * sine3 + imaginary * cosine3;
    }
  }
}

function lastPassOfFour(x, y, count) {
  const far = count / 2;
  for (let a = 0; a < far; a += 2) {
    const b = a + far;
    const c = b + far;
    const d = c + far;
    const sumReal = x[a] + x[c];
    const sumImaginary = x[a + 1] + x[c + 1];
    const differenceReal = x[a] - x[c];
    const differenceImaginary = x[a + 1] - x[c + 1];
    const otherReal = x[b] + x[d];
    const otherImaginary = x[b + 1] + x[d + 1];
    const crossReal = x[b] - x[d];
    const crossImaginary = x[b + 1] - x[d + 1];
    y[a] = sumReal + otherReal;
    y[a + 1] = sumImaginary + otherImaginary;
    y[b] = differenceReal + crossImaginary;
    y[b + 1] = differenceImaginary - crossReal;
    y[c] = sumReal - otherReal;
    y[c + 1] = sumImaginary - otherImaginary;
    y[d] = differenceReal - crossImaginary;
    y[d + 1] = differenceImaginary + crossReal;
  }
}

function lastPassOfEight(x, y, count) {
  const far = count / 4;
  for (let a = 0; a < far; a += 2) {
    const b = a + far;
    const c = b + far;
    const d = c + far;
    const e = d + far;
    const f = e + far;
    const g = f + far;
    const h = g + far;
    // The four numbers at even places, then the four at odd ones.
    let sumReal = x[a] + x[e];
    let sumImaginary = x[a + 1] + x[e + 1];
    let differenceReal = x[a] - x[e];
    let differenceImaginary = x[a + 1] - x[e + 1];
    let otherReal = x[c] + x[g];
    let otherImaginary = x[c + 1] + x[g + 1];
    let crossReal = x[c] - x[g];
    let crossImaginary = x[c + 1] - x[g + 1];
    const even0Real = sumReal + otherReal;
    const even0Imaginary = sumImaginary + otherImaginary;
    const even1Real = differenceReal + crossImaginary;
    const even1Imaginary = differenceImaginary - crossReal;
    const even2Real = sumReal - otherReal;
    const even2Imaginary = sumImaginary - otherImaginary;
    const even3Real = differenceReal - crossImaginary;
    const even3Imaginary = differenceImaginary + crossReal;
    sumReal = x[b] + x[f];
    sumImaginary = x[b + 1] + x[f + 1];
    differenceReal = x[b] - x[f];
    differenceImaginary = x[b + 1] - x[f + 1];
    otherReal = x[d] + x[h];
    otherImaginary = x[d + 1] + x[h + 1];
    crossReal = x[d] - x[h];
    crossImaginary = x[d + 1] - x[h + 1];
    const odd0Real = sumReal + otherReal;
    const odd0Imaginary = sumImaginary + otherImaginary;
    const odd2Real = sumImaginary - otherImaginary;
    const odd2Imaginary = otherReal - sumReal;
    const oneReal = differenceReal + crossImaginary;
    const oneImaginary = differenceImaginary - crossReal;
    const threeReal = differenceReal - crossImaginary;
    const threeImaginary = differenceImaginary + crossReal;
    const odd1Real = EIGHTH_TURN * (oneReal + oneImaginary);
    const odd1Imaginary = EIGHTH_TURN * (oneImaginary - oneReal);
    const odd3Real = EIGHTH_TURN * (threeImaginary - threeReal);
    const odd3Imaginary = -EIGHTH_TURN * (threeReal + threeImaginary);
    y[a] = even0Real + odd0Real;
    y[a + 1] = even0Imaginary + odd0Imaginary;
    y[b] = even1Real + odd1Real;
    y[b + 1] = even1Imaginary + odd1Imaginary;
    y[c] = even2Real + odd2Real;
    y[c + 1] = even2Imaginary + odd2Imaginary;
    y[d] = even3Real + odd3Real;
    y[d + 1] = even3Imaginary + odd3Imaginary;
    y[e] = even0Real - odd0Real;
    y[e + 1] = even0Imaginary - odd0Imaginary;
    y[f] = even1Real - odd1Real;
    y[f + 1] = even1Imaginary - odd1Imaginary;
    y[g] = even2Real - odd2Real;
    y[g + 1] = even2Imaginary - odd2Imaginary;
    y[h] = even3Real - odd3Real;
    y[h + 1] = even3Imaginary - odd3Imaginary;
  }
}
