/**
 * Initial phases for phase retrieval: those that the partials of a magnitude spectrogram would have
 * (sdxl_mel/sound/inversion/phase_init.py). Phases are in cycles, frequencies in bins.
 */

const LARGEST_RATIO = 1e18;
const LEAST_WEIGHT = 1e-6;

/**
 * The spectrum (frames, coarse bins) to start from, with the magnitudes `coarse` and phases that follow the partials of
 * `target` (frames, bins). They are random in the first frame, or those of a sound that is `known`, {spectrum, last}:
 * where there is any, and continued from its last whole frame (-1 = none is). Of two halves the second continues the
 * first one's, whose end it has from its `neighbour`.
 */
export async function initialSpectrum(target, coarse, spec, generator, { known = null, neighbour = null } = {}) {
  const bins = spec.n_fft / 2 + 1;
  const frames = target.length / bins;
  const coarseBins = coarse.length / frames;
  const share = (bins - 1) / (coarseBins - 1);
  const halfHop = spec.hop_length / spec.n_fft / 2; // From frame to frame a partial turns by its mean frequency there.
  const [frequencies, before] = [new Float64Array(bins), new Float64Array(coarseBins)];
  const [cycles, offsets] = [new Float64Array(coarseBins), new Float64Array(coarseBins)];
  const spectrum = new Float32Array(2 * coarse.length);
  for (let frame = 0; frame < frames; frame++) {
    partialFrequencies(target.subarray(frame * bins, (frame + 1) * bins), spec, frequencies);
    if (frame === 0 && !neighbour?.before && !(known?.last >= 0)) {
      const first = initialPhases(frequencies, spec, generator);
      offsets.forEach((_, bin) => (offsets[bin] = first[bin * share]));
    }
    for (let bin = 0, at = frame * coarseBins; bin < coarseBins; bin++, at++) {
      const frequency = frequencies[bin * share];
      if (frame > 0 || neighbour?.before) cycles[bin] += (frequency + before[bin]) * halfHop;
      cycles[bin] -= Math.floor(cycles[bin]);
      before[bin] = frequency;
      if (known?.last === frame) {
        offsets[bin] = Math.atan2(known.spectrum[2 * at + 1], known.spectrum[2 * at]) / (2 * Math.PI) - cycles[bin];
      }
      spectrum[2 * at] = cycles[bin]; // Until the offsets are known.
    }
  }
  if (neighbour) {
    const onwards = cycles.map((cycle, bin) => cycle + offsets[bin] + before[bin] * halfHop);
    const theirs = await neighbour.exchange(onwards);
    if (neighbour.before) offsets.set(theirs);
  }
  for (let at = 0; at < coarse.length; at++) {
    const continued = 2 * Math.PI * (spectrum[2 * at] + offsets[at % coarseBins]);
    const real = known ? known.spectrum[2 * at] : 0;
    const imaginary = known ? known.spectrum[2 * at + 1] : 0;
    const angle = real || imaginary ? Math.atan2(imaginary, real) : continued;
    spectrum[2 * at] = coarse[at] * Math.cos(angle);
    spectrum[2 * at + 1] = coarse[at] * Math.sin(angle);
  }
  return spectrum;
}

/** Random phases for each partial of the first frame, not for each bin; within a lobe they fall as a window's do. */
function initialPhases(frequencies, spec, generator) {
  const drawn = generator.uniform(frequencies.length);
  let partial = 0;
  return frequencies.map((frequency, bin) => {
    if (bin > 0 && frequency !== frequencies[bin - 1]) partial++;
    return drawn[partial] - bin * (spec.win_length / spec.n_fft / 2);
  });
}

/** Write the frequency of the partial in whose lobe each bin of one frame's magnitudes lies. */
function partialFrequencies(magnitudes, spec, frequencies) {
  const last = magnitudes.length - 1;
  let start = 0;
  let partial = -1;
  for (let bin = 1; bin <= last; bin++) {
    const rises = magnitudes[bin] - magnitudes[bin - 1] > 0;
    const risesNext = bin < last && magnitudes[bin + 1] - magnitudes[bin] > 0;
    if (bin === last || (!rises && risesNext)) {
      const end = bin === last ? bin + 1 : bin;
      for (let each = start; each < end; each++) frequencies[each] = partial < 0 ? each : partial;
      start = bin;
      partial = -1;
    } else if (rises && !risesNext) {
      partial = bin + offsetOf(magnitudes, bin, spec);
    }
  }
}

/**
 * The offset of a partial from the highest bin of its lobe: a neighbour r times as high gives (2 r - 1) / (r + 1) for a
 * Hann window (Grandke 1983), and both neighbours' estimates are averaged with their heights as weights.
 */
function offsetOf(magnitudes, peak, { n_fft: length, win_length: window }) {
  const step = Math.max(1, Math.round(length / window));
  const ratio = (bin) => (bin < 0 || bin >= magnitudes.length ? 0 : magnitudes[bin] / magnitudes[peak]);
  const above = Math.min(ratio(peak + step), LARGEST_RATIO);
  const below = Math.min(ratio(peak - step), LARGEST_RATIO);
  const offset = (above * (2 * above - 1)) / (above + 1) - (below * (2 * below - 1)) / (below + 1);
  return step * Math.min(Math.max(offset / Math.max(above + below, LEAST_WEIGHT), -1), 1);
}
