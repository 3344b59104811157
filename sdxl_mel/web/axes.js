/** The axes of a spectrogram picture: mel rows and hertz, notes, seconds, and where their ticks lie. */

const LINEAR_STEP = 200 / 3;
const LOG_START = 1000;
const LOG_STEP = Math.log(6.4) / 27;
const NOTES = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];
const NATURALS = [0, 4, 7, 2, 9, 5, 11];
const SECONDS = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600,
];

/** Hertz in mel, on the scale "slaney" (Auditory Toolbox, 1998) or "htk"; `melToHz` is the inverse. */
export function hzToMel(hz, scale) {
  if (scale === "htk") return 2595 * Math.log10(1 + hz / 700);
  return hz < LOG_START ? hz / LINEAR_STEP : LOG_START / LINEAR_STEP + Math.log(hz / LOG_START) / LOG_STEP;
}

/** Mel in hertz. */
export function melToHz(mel, scale) {
  if (scale === "htk") return 700 * (10 ** (mel / 2595) - 1);
  const start = LOG_START / LINEAR_STEP;
  return mel < start ? mel * LINEAR_STEP : LOG_START * Math.exp(LOG_STEP * (mel - start));
}

/** Where a frequency lies in a picture of `spec`, 0 = its lower edge, 1 = its upper edge; `hzAt` is the inverse. */
export function heightOf(hz, spec) {
  const [low, high] = [hzToMel(spec.fmin, spec.mel_scale), hzToMel(spec.fmax, spec.mel_scale)];
  // Band i is a triangle from edge i to edge i + 2 of n_mels + 2 edges: its centre, edge i + 1, is the row's middle.
  const edge = ((hzToMel(hz, spec.mel_scale) - low) / (high - low)) * (spec.n_mels + 1);
  return (edge - 0.5) / spec.n_mels;
}

/** The frequency at a height of a picture, in hertz. */
export function hzAt(height, spec) {
  const [low, high] = [hzToMel(spec.fmin, spec.mel_scale), hzToMel(spec.fmax, spec.mel_scale)];
  const edge = height * spec.n_mels + 0.5;
  return Math.max(melToHz(low + (edge / (spec.n_mels + 1)) * (high - low), spec.mel_scale), 0);
}

/** The MIDI number of a frequency, 69 = A4 = 440 Hz; `hzOfMidi` is the inverse. */
export function midiOf(hz) {
  return 69 + 12 * Math.log2(hz / 440);
}

/** The frequency of a MIDI number, in hertz. */
export function hzOfMidi(midi) {
  return 440 * 2 ** ((midi - 69) / 12);
}

/** The nearest note of a frequency, such as "A4" or "A4 +12 ct". */
export function noteName(hz, withCents = false) {
  const midi = midiOf(hz);
  const nearest = Math.round(midi);
  const cents = Math.round(100 * (midi - nearest));
  const name = `${NOTES[((nearest % 12) + 12) % 12]}${Math.floor(nearest / 12) - 1}`;
  return withCents && cents ? `${name} ${cents > 0 ? "+" : "−"}${Math.abs(cents)} ct` : name;
}

/** A frequency as a person reads it: "440", "1.5k". */
export function hertzText(hz) {
  return hz >= 1000 ? `${Number((hz / 1000).toPrecision(3))}k` : `${Number(hz.toPrecision(3))}`;
}

/** A time as a person reads it: "3.25" seconds, from a minute on "2:03.25". */
export function timeText(seconds, digits = 2) {
  const rounded = Number(seconds.toFixed(digits));
  if (rounded < 60) return rounded.toFixed(digits);
  const rest = (rounded % 60).toFixed(digits);
  return `${Math.floor(rounded / 60)}:${rest.padStart(digits ? digits + 3 : 2, "0")}`;
}

/** Ticks of a time axis from `start` to `end` seconds on `width` pixels, at least `gap` pixels apart: [{at, text}]. */
export function timeTicks(start, end, width, gap = 64) {
  const step = SECONDS.find((each) => (each / (end - start)) * width >= gap) ?? SECONDS.at(-1);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let k = Math.ceil(start / step - 1e-9); k * step <= end + 1e-9; k++) {
    ticks.push({ at: k * step, text: timeText(k * step, digits) });
  }
  return ticks;
}

/** Ticks in hertz between two heights on `pixels` pixels, the round ones first: [{at: height, text}]. */
export function hertzTicks(low, high, pixels, spec, gap = 22) {
  const [from, to] = [hzAt(low, spec), hzAt(high, spec)];
  const step = 10 ** Math.floor(Math.log10(Math.max(to - from, 1)) - 1);
  const linear = to / from < LINEAR_BELOW ? [5, 1].flatMap((each) => multiples(each * step, from, to)) : [];
  return spaced([...DECADES, ...linear], low, high, pixels, spec, gap, hertzText);
}

/** Ticks at notes, C before the other naturals, all twelve where they have room: [{at: height, text}]. */
export function noteTicks(low, high, pixels, spec, gap = 18) {
  const [from, to] = [hzAt(low, spec), hzAt(high, spec)].map((hz) => midiOf(Math.max(hz, 8)));
  const rank = (midi) => (NATURALS.indexOf(midi % 12) + 8) % 8;
  const semitone = (midi) => heightOf(hzOfMidi(midi + 1), spec) - heightOf(hzOfMidi(midi), spec);
  const inside = Array.from(
    { length: Math.max(Math.floor(to) - Math.ceil(from) + 1, 0) },
    (_, k) => Math.ceil(from) + k,
  );
  const roomy = inside.filter((midi) => rank(midi) < 7 || semitone(midi) >= (gap / pixels) * (high - low));
  const order = roomy.sort((one, other) => rank(one) - rank(other) || one - other);
  return spaced(order.map(hzOfMidi), low, high, pixels, spec, gap, (hz) => noteName(hz));
}

/** A range whose ends are nearer to each other than this factor has ticks at equal distances in hertz, too. */
const LINEAR_BELOW = 6;
const DECADES = [1, 5, 2, 3, 7].flatMap((first) => [100, 1000, 10000].map((decade) => first * decade)).concat(50, 200);

function multiples(step, from, to) {
  const found = [];
  for (let k = Math.ceil(from / step); k * step <= to; k++) found.push(k * step);
  return found;
}

function spaced(frequencies, low, high, pixels, spec, gap, text) {
  const ticks = [];
  const distance = (gap / pixels) * (high - low);
  for (const hz of frequencies) {
    const at = heightOf(hz, spec);
    const inside = hz > spec.fmin && hz <= spec.fmax && at >= low && at <= high;
    if (inside && ticks.every((tick) => Math.abs(tick.at - at) >= distance)) ticks.push({ at, text: text(hz) });
  }
  return ticks.sort((one, other) => one.at - other.at);
}
