/** Sounds as WAV files, 16 bits a sample, as sdxl_mel/files/audio.py writes them: with their spec, a loop with its loop points. */

const BYTES = 2;
const MIDDLE_C = 60;

/** The bytes of a WAV file of `sounds`, one array a channel; `provenance` is an object that is kept as its comment. */
export function wavBytes(sounds, sampleRate, { loop = false, provenance = null } = {}) {
  const [channels, frames] = [sounds.length, sounds[0].length];
  const format = numbers([1, 2], [channels, 2], [sampleRate, 4], [sampleRate * channels * BYTES, 4], [channels * BYTES, 2], [8 * BYTES, 2]);
  const chunks = [chunk("fmt ", format), chunk("data", samplesOf(sounds))];
  if (loop) {
    const sampler = [0, 0, Math.round(1e9 / sampleRate), MIDDLE_C, 0, 0, 0, 1, 0, 0, 0, 0, frames - 1, 0, 0];
    chunks.push(chunk("smpl", numbers(...sampler.map((number) => [number, 4]))));
  }
  if (provenance) {
    const text = new TextEncoder().encode(`${asciiJson(provenance)}\0`);
    const padded = new Uint8Array(text.length + (text.length % 2));
    padded.set(text);
    chunks.push(chunk("LIST", joined([latin("INFO"), chunk("ICMT", padded)])));
  }
  const body = joined([latin("WAVE"), ...chunks]);
  return joined([latin("RIFF"), numbers([body.length, 4]), body]);
}

function samplesOf(sounds) {
  const samples = new Int16Array(sounds.length * sounds[0].length);
  sounds.forEach((sound, channel) => {
    for (let frame = 0, at = channel; frame < sound.length; frame++, at += sounds.length) {
      samples[at] = Math.round(Math.min(Math.max(sound[frame], -1), 1) * 32767);
    }
  });
  return new Uint8Array(samples.buffer);
}

function chunk(name, content) {
  return joined([latin(name), numbers([content.length, 4]), content, new Uint8Array(content.length % 2)]);
}

/** Whole numbers, little-endian, each of so many bytes. */
function numbers(...each) {
  return Uint8Array.from(each.flatMap(([number, bytes]) => Array.from({ length: bytes }, (_, i) => number / 256 ** i)));
}

function latin(text) {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

/** Arrays of bytes, one after the other. */
export function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function asciiJson(value) {
  const escaped = (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value).replace(/[\u0080-\uffff]/g, escaped);
}
