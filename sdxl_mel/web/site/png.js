/** Spectrogram PNGs as sdxl_mel/files/spectrogram.py reads them: levels, spec, and the record of what made them. */

import { joined, latin, numbers32, utf8 } from "./bytes.js";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const [GREY, RGB] = [0, 2];
const FILTER_UP = 2;
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** The bytes of a picture (channels, height, width; row 0 the lowest band) with the texts of `text` by their names. */
export async function pngBytes(picture, { low_at: lowAt }, text) {
  const { channels, height, width } = picture;
  const header = joined([numbers32([width, height], false), Uint8Array.of(8, channels === 1 ? GREY : RGB, 0, 0, 0)]);
  const texts = Object.entries(text).map(([name, content]) => pngChunk("iTXt", utf8(`${name}\0\0\0\0\0${content}`)));
  const packed = await deflated(filteredRows(picture, lowAt === "bottom"));
  const chunks = [pngChunk("IHDR", header), ...texts, pngChunk("IDAT", packed), pngChunk("IEND", new Uint8Array())];
  return joined([SIGNATURE, ...chunks]);
}

/** The rows from the top, each the difference to the one above it. */
function filteredRows({ channels, height, width, levels }, upsideDown) {
  const rows = new Uint8Array(height * (1 + channels * width));
  const place = (row) => (upsideDown ? height - 1 - row : row) * width;
  for (let row = 0, at = 0; row < height; row++) {
    rows[at++] = FILTER_UP;
    for (let frame = 0; frame < width; frame++) {
      for (let channel = 0; channel < channels; channel++) {
        const plane = channel * height * width + frame;
        rows[at++] = levels[plane + place(row)] - (row ? levels[plane + place(row - 1)] : 0);
      }
    }
  }
  return rows;
}

async function deflated(bytes) {
  const packed = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(packed).arrayBuffer());
}

function pngChunk(name, content) {
  const checked = joined([latin(name), content]);
  let crc = 0xffffffff;
  for (const byte of checked) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return joined([numbers32([content.length], false), checked, numbers32([~crc >>> 0], false)]);
}
