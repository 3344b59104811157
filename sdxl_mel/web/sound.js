/** Sound on the clock of an AudioContext: decoded whole, looped and switched without a gap, heard where it is shown. */

const FADE_SECONDS = 0.006;
const LEAD_SECONDS = 0.01;
const STANDARD_RATE = 44100;

const contexts = new Map();

/** The one AudioContext of a sampling rate: at the sound's own rate decoding resamples nothing. */
export function contextAt(rate) {
  if (!contexts.has(rate)) contexts.set(rate, new AudioContext({ sampleRate: rate, latencyHint: "interactive" }));
  return contexts.get(rate);
}

/** The sampling rate that the header of a WAV, FLAC or Ogg Vorbis file states, else 44,100 Hz. */
export function rateOf(bytes) {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kind = String.fromCharCode(...bytes.subarray(0, 4));
  if (kind === "fLaC") return data.getUint32(18) >>> 12;
  const [mark, offset] = kind === "RIFF" ? ["fmt ", 12] : ["\x01vorbis", 12];
  const head = String.fromCharCode(...bytes.subarray(0, 4096));
  const at = head.indexOf(mark);
  const rate = at >= 0 && at + offset + 4 <= bytes.length ? data.getUint32(at + offset, true) : 0;
  return rate >= 8000 && rate <= 96000 ? rate : STANDARD_RATE;
}

/** Decode sounds to be switched between: buffers of one rate and one length, the shorter ones ending silent. */
export async function decodeSounds(files) {
  const context = contextAt(rateOf(files[0]));
  const buffers = await Promise.all(files.map((bytes) => context.decodeAudioData(bytes.slice().buffer)));
  const length = Math.max(...buffers.map((buffer) => buffer.length));
  return { context, buffers: buffers.map((buffer) => lengthened(buffer, length, context)) };
}

function lengthened(buffer, length, context) {
  if (buffer.length === length) return buffer;
  const longer = context.createBuffer(buffer.numberOfChannels, length, buffer.sampleRate);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    longer.copyToChannel(buffer.getChannelData(channel), channel);
  }
  return longer;
}

/** The channels of a 16-bit PCM WAV file as shares of full scale: {rate, channels}. */
export function wavChannels(bytes) {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let [format, body] = [null, null];
  for (let at = 12; at + 8 <= bytes.length && !body;) {
    const [kind, length] = [String.fromCharCode(...bytes.subarray(at, at + 4)), data.getUint32(at + 4, true)];
    if (kind === "fmt ")
      format = {
        count: data.getUint16(at + 10, true),
        rate: data.getUint32(at + 12, true),
        bits: data.getUint16(at + 22, true),
      };
    if (kind === "data") body = { at: at + 8, length: Math.min(length, bytes.length - at - 8) };
    at += 8 + length + (length % 2);
  }
  if (!body || format?.bits !== 16) throw new Error("not a 16-bit WAV file");
  const frames = Math.floor(body.length / 2 / format.count);
  const channels = Array.from({ length: format.count }, () => new Float32Array(frames));
  for (let frame = 0, at = body.at; frame < frames; frame++) {
    for (const channel of channels) {
      channel[frame] = data.getInt16(at, true) / 32768;
      at += 2;
    }
  }
  return { rate: format.rate, channels };
}

/** Blocks of one sound, heard end to end as they come: each begins on the sample after the one before. */
export class BlockStream {
  /** The node that the sound goes to, null = the device. */
  destination = null;
  #blocks = [];
  #nodes = [];
  #rate = null;
  #started = null;
  #scheduled = 0;

  /** Add the next block, a 16-bit WAV file. */
  append(bytes) {
    const { rate, channels } = wavChannels(bytes);
    this.#rate ??= rate;
    this.#blocks.push(channels);
    if (this.playing) this.#schedule();
  }

  /** The seconds that have come. */
  get seconds() {
    return this.#blocks.reduce((sum, [first]) => sum + first.length, 0) / (this.#rate ?? 1);
  }

  get context() {
    return contextAt(this.#rate);
  }

  get playing() {
    return this.#started !== null;
  }

  /** The place in seconds that is heard now. */
  get time() {
    return this.playing ? Math.min(Math.max(heardTime(this.context) - this.#started, 0), this.seconds) : 0;
  }

  /** Play from the start; blocks that come later follow on. */
  async play() {
    if (this.context.state !== "running") await this.context.resume();
    sounding(this);
    this.#started = Math.ceil((this.context.currentTime + LEAD_SECONDS) * this.#rate) / this.#rate;
    this.#scheduled = 0;
    this.#schedule();
  }

  pause() {
    if (this.playing) this.stopAt(this.context.currentTime);
  }

  /** Be heard until a time of the context, and return the place in seconds that sounds then. */
  stopAt(contextTime) {
    const place = contextTime - this.#started;
    this.#nodes.forEach((node) => node.stop(contextTime));
    [this.#nodes, this.#started] = [[], null];
    return place;
  }

  #schedule() {
    const { context } = this;
    for (const channels of this.#blocks.slice(this.#nodes.length)) {
      // A block that comes too late begins when it can: what follows moves with it.
      const late = context.currentTime + LEAD_SECONDS - (this.#started + this.#scheduled / this.#rate);
      if (late > 0) this.#started += Math.ceil(late * this.#rate) / this.#rate;
      const buffer = context.createBuffer(channels.length, channels[0].length, this.#rate);
      channels.forEach((samples, number) => buffer.copyToChannel(samples, number));
      const node = new AudioBufferSourceNode(context, { buffer });
      node.connect(this.destination ?? context.destination);
      node.start(this.#started + this.#scheduled / this.#rate);
      this.#scheduled += channels[0].length;
      this.#nodes.push(node);
    }
  }
}

let audible = null;

/** What sounds on a page is one thing at a time: what did before pauses. */
function sounding(one) {
  if (audible !== one) audible?.pause();
  audible = one;
}

/** Sounds that play at the same place at once, one of them audible. */
export class Transport extends EventTarget {
  /** The node that the sound goes to, null = the device. */
  destination = null;
  #context;
  #buffers;
  #voices = null;
  #selected = 0;
  #resting = 0;
  #loop = null;

  constructor(context, buffers) {
    super();
    this.#context = context;
    this.#buffers = buffers;
    this.duration = buffers[0].duration;
  }

  /** The AudioContext whose clock this runs on. */
  get context() {
    return this.#context;
  }

  get playing() {
    return this.#voices !== null;
  }

  /** The place in seconds that is heard now. */
  get time() {
    return this.playing ? this.timeAt(heardTime(this.#context)) : this.#resting;
  }

  /** The place in seconds that is heard at a time of the context. */
  timeAt(contextTime) {
    const { started, from } = this.#voices;
    const place = from + Math.max(contextTime - started, 0);
    if (!this.#loop || place < this.#loop.end) return Math.min(place, this.duration);
    return this.#loop.start + ((place - this.#loop.start) % (this.#loop.end - this.#loop.start));
  }

  /** Play from `time`, or from where it rests. Resolves when the clock runs. */
  async play(time = this.time) {
    sounding(this);
    if (this.#context.state !== "running") await this.#context.resume();
    this.#stop();
    const loop = this.#loop;
    const outside = loop && (time < loop.start || time >= loop.end - 1e-4);
    const from = outside ? loop.start : time >= this.duration - 1e-3 ? 0 : Math.max(time, 0);
    this.#start(from);
    this.dispatchEvent(new Event("change"));
  }

  /** Go on with what a BlockStream of the same sound plays: it ends, and this begins, at one sample. */
  follow(stream) {
    const { sampleRate, currentTime } = this.#context;
    const at = Math.ceil((currentTime + LEAD_SECONDS) * sampleRate) / sampleRate;
    const place = stream.stopAt(at);
    sounding(this);
    this.#stop();
    if (place < this.duration) this.#start(place, at, false);
    this.dispatchEvent(new Event("change"));
  }

  /** Stop, and rest where it is. */
  pause() {
    if (!this.playing) return;
    this.#resting = this.time;
    this.#stop();
    this.dispatchEvent(new Event("change"));
  }

  /** Go to `time` and stay as it is, playing or resting. */
  seek(time) {
    this.#resting = Math.min(Math.max(time, 0), this.duration);
    if (this.playing) this.play(this.#resting);
  }

  /** Repeat {start, end} in seconds without a gap, or nothing for null. */
  set loop(range) {
    const time = this.time;
    const end = range && Math.min(range.end, this.duration);
    this.#loop = range && end > range.start ? { start: range.start, end } : null;
    if (this.playing) this.play(time);
  }

  get loop() {
    return this.#loop;
  }

  /** Let another of the sounds be heard, at the same place. */
  select(index) {
    this.#selected = Math.min(index, this.#buffers.length - 1);
    this.#voices?.gains.forEach((gain, number) => ramp(gain.gain, number === this.#selected ? 1 : 0, this.#context));
  }

  #start(from, started = this.#context.currentTime + LEAD_SECONDS, fades = from > 0) {
    const context = this.#context;
    const output = context.createGain();
    if (fades) {
      output.gain.setValueAtTime(0, started);
      output.gain.linearRampToValueAtTime(1, started + FADE_SECONDS);
    }
    output.connect(this.destination ?? context.destination);
    const gains = this.#buffers.map((_, number) => {
      const gain = context.createGain();
      gain.gain.value = number === this.#selected ? 1 : 0;
      gain.connect(output);
      return gain;
    });
    const nodes = this.#buffers.map((buffer, number) => {
      const node = new AudioBufferSourceNode(context, { buffer });
      if (this.#loop) Object.assign(node, { loop: true, loopStart: this.#loop.start, loopEnd: this.#loop.end });
      node.connect(gains[number]);
      node.start(started, from);
      return node;
    });
    const voices = { started, from, output, gains, nodes };
    nodes[0].onended = () => {
      if (this.#voices !== voices) return;
      this.#resting = this.duration;
      this.#voices = null;
      this.dispatchEvent(new Event("change"));
    };
    this.#voices = voices;
  }

  #stop() {
    if (!this.#voices) return;
    const { output, nodes } = this.#voices;
    this.#voices = null;
    ramp(output.gain, 0, this.#context);
    nodes.forEach((node) => node.stop(this.#context.currentTime + 2 * FADE_SECONDS));
  }
}

/** The time of a context that is heard now: what has been computed ahead for the device is not heard yet. */
function heardTime(context) {
  const { contextTime, performanceTime } = context.getOutputTimestamp?.() ?? {};
  if (!contextTime) return context.currentTime - (context.outputLatency || 0);
  return Math.min(contextTime + (performance.now() - performanceTime) / 1000, context.currentTime);
}

function ramp(parameter, value, context) {
  const now = context.currentTime;
  parameter.cancelScheduledValues(now);
  parameter.setValueAtTime(parameter.value, now);
  parameter.linearRampToValueAtTime(value, now + FADE_SECONDS);
}
