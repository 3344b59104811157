/** The mel filter bank and the sizes of the STFT of a spec: sdxl_mel/sound/mel.py. */

const LINEAR_STEP_HZ = 200 / 3;
const LOG_START_HZ = 1000;
const LOG_START_MEL = LOG_START_HZ / LINEAR_STEP_HZ;
const LOG_STEP = Math.log(6.4) / 27;
const TINY_SUM = 1e-12;

function hzToMel(hz, scale) {
  if (scale === "htk") return 2595 * Math.log10(1 + hz / 700);
  return hz < LOG_START_HZ ? hz / LINEAR_STEP_HZ : LOG_START_MEL + Math.log(hz / LOG_START_HZ) / LOG_STEP;
}

function melToHz(mel, scale) {
  if (scale === "htk") return 700 * (10 ** (mel / 2595) - 1);
  return mel < LOG_START_MEL ? mel * LINEAR_STEP_HZ : LOG_START_HZ * Math.exp(LOG_STEP * (mel - LOG_START_MEL));
}

/** How many samples before and after a clip its first and last frame cover. */
export function marginOf(spec) {
  return Math.floor((spec.centred ? spec.win_length : spec.win_length - spec.hop_length) / 2);
}

/** How many samples `frames` frames cover. */
export function reachOf(frames, spec) {
  return (frames - 1) * spec.hop_length + spec.win_length;
}

/** The periodic Hann window, scaled so that an STFT of 1 is what `spec.scale` says. */
export function windowOf({ win_length: length, scale }) {
  const gain = scale === "sine" ? 4 / length : 1;
  const hann = (i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / length);
  return Float64Array.from({ length }, (_, i) => Math.fround(gain * hann(i)));
}

/** How many bins lie below the lowest band: a picture says nothing of them. */
export function binsBelowFmin({ fmin, sample_rate: rate }, fftLength) {
  return Math.floor((fmin * fftLength) / rate) + 1;
}

/**
 * The triangular bands of a spec. Between two neighbouring edges one band falls and the next one rises, so each bin is
 * kept as its weights in these two, and a band as what rises in one segment and falls in the one after it.
 */
export class FilterBank {
  constructor(spec) {
    const { sample_rate: rate, n_fft: length, n_mels: bands, fmin, fmax, mel_scale: scale, mel_norm: norm } = spec;
    const [low, high] = [hzToMel(fmin, scale), hzToMel(fmax, scale)];
    const edges = Array.from({ length: bands + 2 }, (_, i) => melToHz(low + ((high - low) * i) / (bands + 1), scale));
    const area = (band) => (norm === "slaney" ? 2 / (edges[band + 2] - edges[band]) : 1);
    this.bands = bands;
    this.bins = length / 2 + 1;
    const [rising, falling] = [new Float64Array(this.bins), new Float64Array(this.bins)];
    const peaks = new Float64Array(bands + 2); // Of band i at i + 1.
    /** The first bin of each segment, and behind the last the first bin above all bands. */
    this.segments = Int32Array.from(edges, (edge) => Math.ceil((edge * length) / rate));
    this.segments[bands + 1] = Math.min(Math.floor((edges[bands + 1] * length) / rate) + 1, this.bins);
    this.#eachBin((bin, segment) => {
      const share = ((bin * rate) / length - edges[segment]) / (edges[segment + 1] - edges[segment]);
      if (segment < bands) rising[bin] = Math.fround(Math.max(share * area(segment), 0));
      if (segment > 0) falling[bin] = Math.fround(Math.max((1 - share) * area(segment - 1), 0));
      peaks[segment + 1] = Math.max(peaks[segment + 1], rising[bin]);
      peaks[segment] = Math.max(peaks[segment], falling[bin]);
    });
    this.rising = rising;
    this.falling = falling;
    // The same, so that the weights of each bin sum to 1.
    const total = (bin) => Math.max(rising[bin] + falling[bin], TINY_SUM);
    this.risingShare = rising.map((weight, bin) => weight / total(bin));
    this.fallingShare = falling.map((weight, bin) => weight / total(bin));
    /** How much the bands cover each bin: 1, less beyond the lowest and the highest band centre. */
    this.coverage = new Float64Array(this.bins);
    this.#eachBin((bin, segment) => {
      const up = segment < bands ? rising[bin] / peaks[segment + 1] : 0;
      const down = segment > 0 ? falling[bin] / peaks[segment] : 0;
      this.coverage[bin] = Math.min(up + down, 1);
    });
    this.ratios = new Float64Array(bands + 2);
  }

  #eachBin(visit) {
    for (let segment = 0; segment <= this.bands; segment++) {
      for (let bin = this.segments[segment]; bin < this.segments[segment + 1]; bin++) visit(bin, segment);
    }
  }

  /** Multiply `bins` by the mean over its bands of what `ratios` says of each; by 0 where there is no band. */
  #scale(bins, most) {
    const { segments, risingShare, fallingShare, ratios } = this;
    bins.fill(0, 0, segments[0]);
    bins.fill(0, segments[this.bands + 1]);
    for (let segment = 0; segment <= this.bands; segment++) {
      const below = ratios[segment];
      const here = ratios[segment + 1];
      const end = segments[segment + 1];
      for (let bin = segments[segment]; bin < end; bin++) {
        bins[bin] *= Math.min(fallingShare[bin] * below + risingShare[bin] * here, most);
      }
    }
  }

  /** Fill `bins` with the mean of the bands, `mel` from `at` on, times the coverage. */
  meanOverBands(mel, at, bins) {
    for (let band = 0; band < this.bands; band++) this.ratios[band + 1] = mel[at + band];
    bins.set(this.coverage);
    this.#scale(bins, Infinity);
  }

  /**
   * One multiplicative update of magnitudes towards the mel values from `at` on, with factors of at most `most`:
   * X <- X * (M^T (V / (M X))) / (M^T 1) (Lee and Seung 2001).
   */
  update(bins, mel, at, most = Infinity) {
    const { segments, rising, falling, ratios, bands } = this;
    let before = 0; // What rose in the segment before.
    for (let segment = 0; segment <= bands; segment++) {
      let up = 0;
      let down = 0;
      const end = segments[segment + 1];
      for (let bin = segments[segment]; bin < end; bin++) {
        up += rising[bin] * bins[bin];
        down += falling[bin] * bins[bin];
      }
      if (segment > 0) ratios[segment] = mel[at + segment - 1] / Math.max(before + down, TINY_SUM);
      before = up;
    }
    this.#scale(bins, most);
  }
}
