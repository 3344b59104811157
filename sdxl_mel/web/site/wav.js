/** Sounds as WAV files of 16 bits with what made them, a loop with its loop points: sdxl_mel/files/audio.py. */

import { joined, latin, numbers32, utf8 } from "./bytes.js";

const SAMPLE_BYTES = 2;
const LEVELS = 2 ** 15;
const PCM = 1;
const MIDDLE_C = 60;

/** The bytes of a WAV file of `sounds`, one array a channel; `comment` is a text, kept in its INFO list. */
export function wavBytes(sounds, rate, { loop = false, comment = null } = {}) {
  const [channels, frames] = [sounds.length, sounds[0].length];
  const frameBytes = channels * SAMPLE_BYTES;
  const low = PCM + channels * 2 ** 16;
  const high = frameBytes + 8 * SAMPLE_BYTES * 2 ** 16;
  const chunks = [wavChunk("fmt ", little(low, rate, rate * frameBytes, high)), wavChunk("data", samplesOf(sounds))];
  if (loop) {
    const sampler = [0, 0, Math.round(1e9 / rate), MIDDLE_C, 0, 0, 0, 1, 0];
    chunks.push(wavChunk("smpl", little(...sampler, 0, 0, 0, frames - 1, 0, 0)));
  }
  if (comment !== null) {
    const text = utf8(`${comment}\0`);
    const whole = joined([text, new Uint8Array(text.length % 2)]);
    chunks.push(wavChunk("LIST", joined([latin("INFO"), wavChunk("ICMT", whole)])));
  }
  return wavChunk("RIFF", joined([latin("WAVE"), ...chunks]));
}

/** Samples as libsndfile rounds and clips them, the channels by turns. */
function samplesOf(sounds) {
  const samples = new DataView(new ArrayBuffer(sounds.length * sounds[0].length * SAMPLE_BYTES));
  sounds.forEach((sound, channel) => {
    let at = channel * SAMPLE_BYTES;
    for (const sample of sound) {
      const level = Math.floor(Math.round(sample * 2 ** 31) / 2 ** 16);
      samples.setInt16(at, Math.min(Math.max(level, -LEVELS), LEVELS - 1), true);
      at += sounds.length * SAMPLE_BYTES;
    }
  });
  return new Uint8Array(samples.buffer);
}

function wavChunk(name, content) {
  return joined([latin(name), little(content.length), content, new Uint8Array(content.length % 2)]);
}

function little(...numbers) {
  return numbers32(numbers, true);
}
