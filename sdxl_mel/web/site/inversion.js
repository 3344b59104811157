/**
 * Pictures to sound: the methods `fast` and `best` of sdxl_mel/sound/inversion, mel to linear and then phase retrieval,
 * in overlapping blocks, so that memory does not grow with the length of a picture.
 */

import { release } from "./bytes.js";
import { framesOf, melOfLevels } from "./levels.js";
import { FilterBank, marginOf, reachOf } from "./mel.js";
import { initialSpectrum } from "./phases.js";
import { Consistency, KnownSound, fastGriffinLim, raar } from "./projections.js";
import { TorchGenerator } from "./seeding.js";

/** Numbers of iterations, in the order of the steps. */
export const METHODS = {
  fast: { melToLinear: 20, raar: 24, stereo: 24, final: 8 },
  best: { melToLinear: 30, raar: 80, stereo: 40, final: 24 },
};
const LARGEST_GAIN = 1e3;
const WEAK_MID = 0.05; // Share of the mean power of left and right below which the mid is too weak to lead.
/** The most frames that are worked on at once. */
export const BLOCK_FRAMES = 1024;
const KNOWN_FRAMES = 16; // At the start of a block, whose sound was returned already.
const AHEAD_FRAMES = 16; // At the end of a block, which the next one computes again, knowing what follows them.

/**
 * Yield the sound of a picture block by block, each one Float32Array a channel. `pause` is awaited before every
 * iteration and may throw to stop. With a `neighbour` the picture is one half of another, of at most BLOCK_FRAMES.
 */
export async function* invertBlocks(picture, spec, options = {}) {
  const { method = "fast", seed = 0, loop = false, pause = () => {} } = options;
  const { blockFrames = BLOCK_FRAMES, neighbour = null } = options;
  if (!METHODS[method]) throw new Error(`unknown method ${method}; known: ${Object.keys(METHODS).join(", ")}`);
  const deemphasis = new Deemphasis(spec.preemphasis);
  const whole = neighbour ? picture : withoutEqualChannels(picture, spec);
  const found = retrievePhase(whole, spec, METHODS[method], { seed, loop, pause, blockFrames, neighbour });
  for await (const sounds of found) {
    yield sounds.map((sound, channel) => deemphasis.filter(sound, channel));
  }
}

/** The picture as one channel where its channels are equal, or where its spec says that they should be. */
export function withoutEqualChannels(picture, spec) {
  const { channels, height, width, levels } = picture;
  if (channels === 1) return picture;
  const plane = height * width;
  const [left, mid, right] = [0, 1, 2].map((channel) => levels.subarray(channel * plane, (channel + 1) * plane));
  const equal = left.every((level, at) => level === mid[at] && level === right[at]);
  return equal || spec.channels === "grey" ? { channels: 1, height, width, levels: left } : picture;
}

/** x[n] = y[n] + coefficient x[n - 1], of a signal that comes in pieces. */
class Deemphasis {
  #last = [0, 0];

  constructor(coefficient) {
    this.coefficient = coefficient;
  }

  filter(sound, channel) {
    if (this.coefficient === 0) return sound;
    let last = this.#last[channel];
    const filtered = sound.map((sample) => (last = sample + this.coefficient * last));
    this.#last[channel] = last;
    return filtered;
  }
}

async function* retrievePhase(picture, spec, iterations, { seed, loop, pause, blockFrames, neighbour }) {
  const [frames, hop] = [picture.width, spec.hop_length];
  if (loop && frames * hop < spec.win_length) throw new Error(`${frames} frames are too short for a loop`);
  const taken = (sounds, from, to) => sounds.map((sound) => Float32Array.from(sound.subarray(from, to)));
  if (frames <= blockFrames) {
    const generator = new TorchGenerator(seed, "phase", 0);
    const sounds = await invertBlock(picture, spec, iterations, generator, pause, { loop, neighbour });
    yield taken(sounds, marginOf(spec), marginOf(spec) + frames * hop);
    return;
  }
  // A loop begins and ends in its other end's frames, so that the last block can agree with the first.
  const ahead = loop ? AHEAD_FRAMES : 0;
  const total = loop ? frames + AHEAD_FRAMES + KNOWN_FRAMES : frames;
  const last = ahead + frames;
  let [start, returned, beginning, previous] = [0, ahead, null, null];
  for (let block = 0; returned < last; block++) {
    const stop = Math.min(start + blockFrames, total);
    let known = previous && knownFromPrevious(previous, returned - start, stop - start, spec);
    if (block > 0 && beginning && stop === total) {
      known = knownAtEnd(known, beginning, last - start, spec);
    }
    const part = turnedFrames(picture, start - ahead, stop - start);
    const generator = new TorchGenerator(seed, "phase", block);
    const sounds = await invertBlock(part, spec, iterations, generator, pause, { known });
    if (loop && block === 0) beginning = taken(sounds, 0, (2 * AHEAD_FRAMES + KNOWN_FRAMES) * hop);
    const end = stop === total ? last : stop - AHEAD_FRAMES;
    const origin = marginOf(spec) - start * hop;
    yield taken(sounds, origin + returned * hop, origin + end * hop);
    previous = taken(sounds, (end - KNOWN_FRAMES - start) * hop);
    [start, returned] = [end - KNOWN_FRAMES, end];
  }
}

/** `count` frames of a picture from `first` on, around a circle: before its start lies its end. */
function turnedFrames(picture, first, count) {
  if (first >= 0 && first + count <= picture.width) return framesOf(picture, first, count);
  const { channels, height, width, levels } = picture;
  const turned = { channels, height, width: count, levels: new Uint8Array(channels * height * count) };
  for (let row = 0, at = 0; row < channels * height; row++) {
    for (let frame = 0; frame < count; frame++) {
      turned.levels[at++] = levels[row * width + ((((first + frame) % width) + width) % width)];
    }
  }
  return turned;
}

/** The sounds (1 or 2, reach) of one block; `generator` draws the phases that it starts from. */
async function invertBlock(picture, spec, iterations, generator, pause, { known = null, loop = false, neighbour }) {
  const [bank, frames] = [new FilterBank(spec), picture.width];
  const mel = melOf(picture, spec);
  const targets = [];
  for (const channel of mel) {
    await pause();
    targets.push(melToLinear(channel, spec, bank, iterations.melToLinear));
  }
  const lead = await leadingChannel(targets, neighbour);
  const coarse = coarseLength(spec);
  const coarseTargets = targets.map((target) => thinned(target, bank.bins, spec.n_fft / coarse));
  const knownLead = known && known.leading(lead);
  const leadConsistency = new Consistency(spec, coarse, frames, { loop, known: knownLead, neighbour });
  const continued = knownLead && {
    spectrum: leadConsistency.spectrumOf(knownLead.samples[0]),
    last: Math.floor((firstUnknown(knownLead.weight) - spec.win_length) / spec.hop_length),
  };
  const beginning = { known: continued, neighbour };
  const start = await initialSpectrum(targets[lead], coarseTargets[lead], spec, generator, beginning);
  let sounds = [await raar(start, coarseTargets[lead], leadConsistency, iterations.raar, pause)];
  if (targets.length === 3) {
    const consistency = new Consistency(spec, coarse, frames, { channels: 2, loop, known, neighbour });
    const spectra = stereoFromLeading(consistency.spectrumOf(sounds[0]), coarseTargets);
    sounds = await consistency.soundsOf(spectra);
    spectra.forEach(release);
    sounds = await fastGriffinLim(sounds, coarseTargets, consistency, iterations.stereo, pause);
  }
  const channels = sounds.length;
  const consistency = new Consistency(spec, spec.n_fft, frames, { channels, loop, known, neighbour });
  /** Move the sound's own magnitudes one step towards the mel values (Masuyama et al. 2023, arXiv 2307.12232). */
  const follow = (frame, sizes) => {
    sizes.forEach((size, channel) => updated(size, mel[channel], frame * spec.n_mels, spec, bank));
  };
  sounds = await fastGriffinLim(sounds, targets, consistency, iterations.final, pause, follow);
  // A worker that goes on to the next block collects no garbage for long, and there are tens of MB of it.
  [...mel, ...targets, ...coarseTargets, start].forEach(release);
  return sounds;
}

function firstUnknown(weight) {
  const found = weight.findIndex((share) => share !== 1);
  return found < 0 ? weight.length : found;
}

/** The mel values of each channel, (frames, n_mels). */
function melOf({ channels, height, width, levels }, spec) {
  const meaning = melOfLevels(spec);
  return Array.from({ length: channels }, (_, channel) => {
    const mel = new Float32Array(width * height);
    for (let row = 0, at = channel * height * width; row < height; row++) {
      for (let frame = 0; frame < width; frame++, at++) mel[frame * height + row] = meaning[levels[at]];
    }
    return mel;
  });
}

/** The magnitudes (frames, bins) that mel values (frames, n_mels) most likely came from (Lucy 1974). */
function melToLinear(mel, spec, bank, iterations) {
  const frames = mel.length / spec.n_mels;
  const [magnitudes, bins] = [new Float32Array(frames * bank.bins), new Float64Array(bank.bins)];
  for (let frame = 0; frame < frames; frame++) {
    const at = frame * spec.n_mels;
    bank.meanOverBands(mel, at, bins);
    for (let iteration = 0; iteration < iterations; iteration++) bank.update(bins, mel, at);
    magnitudes.set(spec.quantity === "power" ? bins.map(Math.sqrt) : bins, frame * bank.bins);
  }
  return magnitudes;
}

function updated(size, mel, at, spec, bank) {
  if (spec.quantity === "amplitude") return bank.update(size, mel, at, LARGEST_GAIN);
  for (let bin = 0; bin < size.length; bin++) size[bin] **= 2;
  bank.update(size, mel, at, LARGEST_GAIN);
  for (let bin = 0; bin < size.length; bin++) size[bin] = Math.sqrt(size[bin]);
}

/** The length of an FFT that is no longer than the window needs: phase retrieval learns nothing from zero-padding. */
function coarseLength({ n_fft: length, win_length: window }) {
  const share = Math.floor(length / window);
  return length % (2 * share) === 0 ? length / share : length;
}

function thinned(target, bins, share) {
  const kept = (bins - 1) / share + 1;
  const coarse = new Float32Array((target.length / bins) * kept);
  for (let at = 0, frame = 0; at < coarse.length; frame += bins) {
    for (let bin = 0; bin < bins; bin += share) coarse[at++] = target[frame + bin];
  }
  return coarse;
}

/** The channel whose phase is retrieved first: the mid, or the left where the mid is too weak; 0 for one channel. */
async function leadingChannel(targets, neighbour) {
  if (targets.length === 1) return 0;
  const here = Float64Array.from(targets, (target) => target.reduce((sum, size) => sum + size * size, 0));
  const there = neighbour ? await neighbour.exchange(here) : [0, 0, 0];
  const [left, mid, right] = here.map((power, channel) => power + there[channel]);
  return mid >= (WEAK_MID * (left + right)) / 2 ? 1 : 0;
}

/** Left and right spectra of the leading one: in phase, or in opposite phase where the mid is nearer to that. */
function stereoFromLeading(leading, [left, mid, right]) {
  const spectra = [leading.slice(), leading.slice()];
  for (let at = 0, i = 0; at < mid.length; at++, i += 2) {
    const size = Math.max(Math.sqrt(leading[i] ** 2 + leading[i + 1] ** 2), 1e-20);
    const opposite = 4 * mid[at] ** 2 < left[at] ** 2 + right[at] ** 2;
    [left[at], opposite ? -right[at] : right[at]].forEach((target, channel) => {
      spectra[channel][i] *= target / size;
      spectra[channel][i + 1] *= target / size;
    });
  }
  return spectra;
}

/** What a block of `frames` knows that begins with the sound `previous`: certain at first, then fading out. */
function knownFromPrevious(previous, knownFrames, frames, spec) {
  const length = reachOf(frames, spec);
  const count = Math.min(length, previous[0].length);
  const samples = previous.map((sound) => {
    const longer = new Float32Array(length);
    longer.set(sound.subarray(0, count));
    return longer;
  });
  const weight = new Float64Array(length);
  const certain = marginOf(spec) + knownFrames * spec.hop_length;
  const fade = Math.min(spec.win_length, count - certain);
  weight.fill(1, 0, certain);
  for (let i = 0; i < fade; i++) weight[certain + i] = fadingOut(i, fade);
  return new KnownSound(samples, weight);
}

/** What a last block knows too: from `endFrames` on, its sound is that of the loop's start, `beginning`. */
function knownAtEnd(known, beginning, endFrames, spec) {
  const end = marginOf(spec) + endFrames * spec.hop_length;
  const shift = (endFrames - AHEAD_FRAMES) * spec.hop_length;
  const fade = spec.win_length;
  known.samples.forEach((samples, channel) => {
    const tail = beginning[channel].subarray(0, samples.length - shift);
    samples.set(tail.subarray(end - fade - shift), end - fade);
  });
  for (let i = 0; i < fade; i++) known.weight[end - fade + i] = fadingOut(fade - 1 - i, fade);
  known.weight.fill(1, end);
  return known;
}

/** Half a period of a raised cosine, from 1 to 0, at the i-th of `length` samples. */
function fadingOut(i, length) {
  return 0.5 + 0.5 * Math.cos((Math.PI * (i + 0.5)) / length);
}
