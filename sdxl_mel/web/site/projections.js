/**
 * Phase retrieval: projections between the spectra of target magnitudes and the STFTs of sounds, as in
 * sdxl_mel/sound/inversion/projections.py and stereo.py. A spectrum is one Float32Array of (frames, bins) pairs a
 * channel; targets are one of (frames, bins) for one channel, three (left, mid, right) for two. An iteration is one
 * pass over the sound, a frame at a time.
 */

import { joined, release } from "./bytes.js";
import { RealFft } from "./fft.js";
import { binsBelowFmin, marginOf, reachOf, windowOf } from "./mel.js";

const MOMENTUM = 0.99;
const RELAXATION = 0.9;
const TINY_MAGNITUDE = 1e-20;
const WINDOW_SUM_FLOOR = 1e-4;

/** Samples that are known already, one array a channel, and how much each counts, 0..1. */
export class KnownSound {
  constructor(samples, weight) {
    this.samples = samples;
    this.weight = weight;
  }

  /** The left channel (0), or the mean of both (1). */
  leading(channel) {
    const [left, right] = this.samples;
    const lead = channel === 0 ? left : left.map((sample, i) => (sample + right[i]) / 2);
    return new KnownSound([lead], this.weight);
  }
}

/**
 * The consistency of spectra of `frames` frames: STFT and inverse, of a loop, of what is partly known, or of a half
 * whose `neighbour` has the other one.
 */
export class Consistency {
  #totals = [[], []];

  constructor(spec, fftLength, frames, { channels = 1, loop = false, known = null, neighbour = null } = {}) {
    this.spec = spec;
    this.frames = frames;
    this.bins = fftLength / 2 + 1;
    this.freeBins = binsBelowFmin(spec, fftLength);
    this.fft = new RealFft(fftLength, channels);
    this.window = windowOf(spec);
    this.loop = loop;
    this.known = known;
    this.neighbour = neighbour;
    this.norm = this.#windowSum().map((sum) => 1 / sum);
  }

  /** Write the bins of one frame of a sound to those of a channel. */
  analyse(sound, frame, channel) {
    const { window, fft, spec } = this;
    const { even, odd } = fft;
    const half = window.length / 2;
    for (let i = 0, at = frame * spec.hop_length; i < half; i++, at += 2) {
      even[i] = sound[at] * window[2 * i];
      odd[i] = sound[at + 1] * window[2 * i + 1];
    }
    even.fill(0, half);
    odd.fill(0, half);
    fft.forward(channel);
  }

  /** The spectrum of a sound. */
  spectrumOf(sound) {
    const spectrum = new Float32Array(2 * this.frames * this.bins);
    for (let frame = 0; frame < this.frames; frame++) {
      this.analyse(sound, frame, 0);
      spectrum.set(this.fft.bins[0], 2 * frame * this.bins);
    }
    return spectrum;
  }

  /** The sounds nearest to spectra in least squares (Griffin and Lim 1984, equation 6), one a channel. */
  soundsOf(spectra) {
    const size = 2 * this.bins;
    return this.#synthesised(spectra.length, (frame, bins) => {
      spectra.forEach((each, channel) => bins[channel].set(each.subarray(frame * size, (frame + 1) * size)));
    });
  }

  /** The sounds nearest to the updated spectra of `sounds`; `update` (frame, bins of each channel) works in place. */
  updated(update, sounds) {
    return this.#synthesised(sounds.length, (frame, bins) => {
      sounds.forEach((sound, channel) => this.analyse(sound, frame, channel));
      update(frame, bins);
    });
  }

  /**
   * The sounds of what `write` (frame, bins of each channel) writes; they hold until the next call but one. Of a half
   * the frames at the other half come first: while the rest is made, what both share is on its way.
   */
  async #synthesised(channels, write) {
    const { frames, neighbour, spec } = this;
    const totals = this.#silence(channels);
    const border = Math.min(Math.ceil(spec.win_length / spec.hop_length) - 1, frames);
    let theirs = null;
    for (let done = 0; done < frames; done++) {
      const frame = neighbour && !neighbour.before ? frames - 1 - done : done;
      write(frame, this.fft.bins);
      totals.forEach((total, channel) => this.#add(total, frame, channel));
      if (neighbour && done + 1 === border) theirs = neighbour.exchange(joined(this.#shared(totals)));
    }
    if (theirs) this.#addTheirs(totals, await theirs);
    return this.#finished(totals);
  }

  /** Zeros for the sounds of so many channels, in the arrays of the last call but one. */
  #silence(channels) {
    this.#totals.reverse();
    const [totals] = this.#totals;
    while (totals.length < channels) totals.push(new Float64Array(reachOf(this.frames, this.spec)));
    return totals.map((total) => total.fill(0));
  }

  #add(total, frame, channel) {
    const { window, fft, spec } = this;
    const [even, odd] = fft.inverse(channel);
    const half = window.length / 2;
    for (let i = 0, at = frame * spec.hop_length; i < half; i++, at += 2) {
      total[at] += even[i] * window[2 * i];
      total[at + 1] += odd[i] * window[2 * i + 1];
    }
  }

  #finished(totals) {
    const { norm, known } = this;
    const sounds = this.loop ? totals.map((total) => this.#wrapped(total)) : totals;
    sounds.forEach((sound, channel) => {
      for (let i = 0; i < sound.length; i++) sound[i] *= norm[i];
      if (!known) return;
      const [samples, weight] = [known.samples[channel], known.weight];
      for (let i = 0; i < sound.length; i++) sound[i] += weight[i] * (samples[i] - sound[i]);
    });
    return sounds;
  }

  /** Where the frames of both halves lie in totals. */
  #shared(totals) {
    const { win_length: length, hop_length: hop } = this.spec;
    const first = this.neighbour.before ? 0 : this.frames * hop;
    return totals.map((total) => total.subarray(first, first + length - hop));
  }

  #addTheirs(totals, theirs) {
    const shared = this.#shared(totals);
    const count = theirs.length / shared.length;
    shared.forEach((part, channel) => part.forEach((_, i) => (part[i] += theirs[channel * count + i])));
  }

  /** The sound of frames on a circle: its margins are added to the other end, and repeat that end. */
  #wrapped(total) {
    const [before, length] = [marginOf(this.spec), this.frames * this.spec.hop_length];
    const circle = total.slice(before, before + length);
    for (let i = 0; i < before; i++) circle[length - before + i] += total[i];
    for (let i = before + length; i < total.length; i++) circle[i - before - length] += total[i];
    return total.map((_, i) => circle[(i - before + length) % length]);
  }

  #windowSum() {
    const { frames, neighbour, spec } = this;
    const squares = this.window.map((weight) => weight ** 2);
    const total = new Float64Array(reachOf(frames, spec));
    const beside = Math.ceil(spec.win_length / spec.hop_length);
    const [before, after] = [neighbour?.before ? beside : 0, neighbour && !neighbour.before ? beside : 0];
    for (let frame = -before; frame < frames + after; frame++) {
      const first = frame * spec.hop_length;
      const end = Math.min(squares.length, total.length - first);
      for (let i = Math.max(0, -first); i < end; i++) total[first + i] += squares[i];
    }
    const least = (squares.reduce((sum, square) => sum + square, 0) / spec.hop_length) * WINDOW_SUM_FLOOR;
    return (this.loop ? this.#wrapped(total) : total).map((sum) => Math.max(sum, least));
  }
}

/**
 * The sound that RAAR makes of a spectrum of one channel (relaxed averaged alternating reflections, Luke 2005, equation
 * 2.1): X <- A + b (P_C r - r) with A = P_A X, r = 2 A - X. `pause` is awaited before every iteration.
 */
export async function raar(spectrum, target, consistency, iterations, pause) {
  const { bins: count, freeBins } = consistency;
  const projected = spectrum;
  const reflected = spectrum.slice();
  const update = (frame, [bins]) => {
    for (let bin = 0, at = frame * count, i = 2 * at; bin < count; bin++, at++, i += 2) {
      const real = (bins[2 * bin] - reflected[i]) * RELAXATION + projected[i];
      const imaginary = (bins[2 * bin + 1] - reflected[i + 1]) * RELAXATION + projected[i + 1];
      const size = Math.sqrt(real * real + imaginary * imaginary);
      if (bin < freeBins) target[at] = size;
      const gain = target[at] / Math.max(size, TINY_MAGNITUDE);
      projected[i] = real * gain;
      projected[i + 1] = imaginary * gain;
      bins[2 * bin] = reflected[i] = 2 * projected[i] - real;
      bins[2 * bin + 1] = reflected[i + 1] = 2 * projected[i + 1] - imaginary;
    }
  };
  let sounds = await consistency.soundsOf([reflected]);
  for (let iteration = 0; iteration < iterations; iteration++) {
    await pause();
    sounds = await consistency.updated(update, sounds);
  }
  const [sound] = await consistency.soundsOf([projected]);
  release(reflected);
  return sound;
}

/**
 * The sounds that fast Griffin-Lim makes of first ones (Perraudin et al. 2013, algorithm 2): t <- c + a (c - c before),
 * then the target magnitudes. `follow` (frame, magnitudes of each target) moves targets with the sound, in place, in
 * all but the first third of the iterations.
 */
export async function fastGriffinLim(sounds, targets, consistency, iterations, pause, follow = null) {
  const { bins: count, frames } = consistency;
  const before = sounds.map(() => new Float32Array(2 * frames * count));
  const project = targets.length === 3 ? projectStereo : projectMono;
  const sizes = targets.map(() => new Float64Array(count));
  for (let iteration = 0; iteration < iterations; iteration++) {
    await pause();
    const follows = follow !== null && iteration >= Math.floor(iterations / 3);
    sounds = await consistency.updated((frame, bins) => {
      if (follows) {
        magnitudes(bins, sizes);
        follow(frame, sizes);
        targets.forEach((target, channel) => target.set(sizes[channel], frame * count));
      }
      bins.forEach((each, channel) => accelerate(each, before[channel], 2 * frame * count, iteration > 0));
      project(bins, targets, frame * count, consistency.freeBins);
    }, sounds);
  }
  before.forEach(release);
  return sounds;
}

/** Write to `bins` what lies MOMENTUM beyond them, seen from `before`, and keep them there from index `at` on. */
function accelerate(bins, before, at, started) {
  for (let i = 0; i < bins.length; i++, at++) {
    const here = bins[i];
    if (started) bins[i] = before[at] + (1 + MOMENTUM) * (here - before[at]);
    before[at] = here;
  }
}

/** Write the magnitudes of one channel, or of left, mid and right. */
function magnitudes([left, right], sizes) {
  const size = (real, imaginary) => Math.sqrt(real * real + imaginary * imaginary);
  for (let bin = 0, i = 0; bin < sizes[0].length; bin++, i += 2) {
    sizes[0][bin] = size(left[i], left[i + 1]);
    if (!right) continue;
    sizes[1][bin] = 0.5 * size(left[i] + right[i], left[i + 1] + right[i + 1]);
    sizes[2][bin] = size(right[i], right[i + 1]);
  }
}

/** Give the bins of a frame the target magnitudes, in place; the lowest bins are free and give theirs to the target. */
function projectMono([bins], [target], at, freeBins) {
  for (let bin = 0, i = 0; i < bins.length; bin++, at++, i += 2) {
    const size = Math.sqrt(bins[i] * bins[i] + bins[i + 1] * bins[i + 1]);
    if (bin < freeBins) target[at] = size;
    const gain = target[at] / Math.max(size, TINY_MAGNITUDE);
    bins[i] *= gain;
    bins[i + 1] *= gain;
  }
}

/** The same of two channels: the mid is corrected first and the side kept, then each takes its own magnitude. */
function projectStereo([left, right], [leftTarget, midTarget, rightTarget], at, freeBins) {
  for (let bin = 0, i = 0; i < left.length; bin++, at++, i += 2) {
    const sumReal = left[i] + right[i];
    const sumImaginary = left[i + 1] + right[i + 1];
    const sideReal = 0.5 * (left[i] - right[i]);
    const sideImaginary = 0.5 * (left[i + 1] - right[i + 1]);
    const sum = Math.sqrt(sumReal * sumReal + sumImaginary * sumImaginary);
    if (bin < freeBins) {
      leftTarget[at] = Math.sqrt(left[i] * left[i] + left[i + 1] * left[i + 1]);
      midTarget[at] = 0.5 * sum;
      rightTarget[at] = Math.sqrt(right[i] * right[i] + right[i + 1] * right[i + 1]);
    }
    const midGain = midTarget[at] / Math.max(sum, TINY_MAGNITUDE); // Of the sum only the phase counts.
    const midReal = sumReal * midGain;
    const midImaginary = sumImaginary * midGain;
    let real = midReal + sideReal;
    let imaginary = midImaginary + sideImaginary;
    let gain = leftTarget[at] / Math.max(Math.sqrt(real * real + imaginary * imaginary), TINY_MAGNITUDE);
    left[i] = real * gain;
    left[i + 1] = imaginary * gain;
    real = midReal - sideReal;
    imaginary = midImaginary - sideImaginary;
    gain = rightTarget[at] / Math.max(Math.sqrt(real * real + imaginary * imaginary), TINY_MAGNITUDE);
    right[i] = real * gain;
    right[i + 1] = imaginary * gain;
  }
}
