/** Stands in for the engine: the same surface, a picture of stripes, a sound of two tones. */

const ROWS = 16;
const BLOCK_SECONDS = 8;
const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});

export async function open(manifestUrl, { onProgress, onDevice }) {
  const manifest = await (await fetch(manifestUrl)).json();
  const { spec } = manifest;
  const total = 2e7;
  for (let loaded = 0; loaded <= total; loaded += total / 4) {
    onProgress({ what: "UNet", loaded, total });
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  onDevice("WebGPU, 3.0 times as fast here as WebAssembly");
  if (localStorage.getItem("refuse")) throw new Error("models/unet.onnx is damaged: load the page again.");
  return {
    manifest,
    async draw({ seed, steps, seconds, signal, onStep }) {
      const columns = seconds ? Math.ceil((seconds * spec.sample_rate) / spec.hop_length / 8) : spec.width / 8;
      for (let number = 1; number <= steps; number++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        signal?.throwIfAborted();
        const latents = Float32Array.from({ length: 4 * ROWS * columns }, (_, at) => Math.sin(at * seed) / number);
        onStep?.({ number, total: steps, latents, rows: ROWS, columns });
      }
      const width = 8 * columns;
      const levels = Uint8Array.from({ length: spec.n_mels * width }, (_, at) => (at * (seed + 1)) % 251);
      return { levels, width, height: spec.n_mels, spec, seconds: (width * spec.hop_length) / spec.sample_rate };
    },
    async sound({ seconds }, { signal, onBlock } = {}) {
      signal?.throwIfAborted();
      const rate = spec.sample_rate;
      const tone = (at) => 0.2 * Math.sin((2 * Math.PI * 440 * at) / rate);
      const whole = Float32Array.from({ length: Math.round(seconds * rate) }, (_, at) => tone(at));
      const block = Math.round(BLOCK_SECONDS * rate);
      for (let at = 0; seconds > BLOCK_SECONDS && at < whole.length; at += block) {
        onBlock?.([whole.slice(at, at + block)]);
        await new Promise((resolve) => setTimeout(resolve, 500));
      }
      return { rate, channels: [whole] };
    },
    async wav({ rate, channels: [samples] }) {
      const data = new DataView(new ArrayBuffer(44 + 2 * samples.length));
      [..."RIFF"].forEach((letter, at) => data.setUint8(at, letter.charCodeAt(0)));
      data.setUint32(4, 36 + 2 * samples.length, true);
      [..."WAVEfmt "].forEach((letter, at) => data.setUint8(8 + at, letter.charCodeAt(0)));
      [16, 0x10001].forEach((value, at) => data.setUint32(16 + 4 * at, value, true));
      [rate, 2 * rate, 0x100002].forEach((value, at) => data.setUint32(24 + 4 * at, value, true));
      [..."data"].forEach((letter, at) => data.setUint8(36 + at, letter.charCodeAt(0)));
      data.setUint32(40, 2 * samples.length, true);
      samples.forEach((sample, at) => data.setInt16(44 + 2 * at, 32767 * sample, true));
      return new Uint8Array(data.buffer);
    },
    async png({ levels, width, height }) {
      const lines = new Uint8Array(height * (width + 1));
      for (let row = 0; row < height; row++) {
        lines.set(levels.subarray(row * width, (row + 1) * width), row * (width + 1) + 1);
      }
      const packed = new Response(new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate")));
      const head = new DataView(new ArrayBuffer(13));
      [width, height].forEach((size, at) => head.setUint32(4 * at, size));
      head.setUint8(8, 8);
      const text = new TextEncoder().encode(`melspec\0\0\0\0\0${JSON.stringify(spec)}`);
      const body = new Uint8Array(await packed.arrayBuffer());
      const chunks = [chunk("IHDR", new Uint8Array(head.buffer)), chunk("iTXt", text), chunk("IDAT", body)];
      return new Blob([Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), ...chunks, chunk("IEND", new Uint8Array())]);
    },
    command: ({ prompt, seed }) => `sdxl-mel generate --base mini --prompt '${prompt}' --seed ${seed} --out sound`,
    async setLora(file) {
      if (!file.name.endsWith(".safetensors")) throw new Error(`${file.name} is no LoRA.`);
    },
    close() {},
  };
}

function chunk(kind, body) {
  const bytes = new Uint8Array(body.length + 12);
  const data = new DataView(bytes.buffer);
  data.setUint32(0, body.length);
  bytes.set(new TextEncoder().encode(kind), 4);
  bytes.set(body, 8);
  let crc = 0xffffffff;
  for (const byte of bytes.subarray(4, 8 + body.length)) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  data.setUint32(8 + body.length, ~crc >>> 0);
  return bytes;
}
