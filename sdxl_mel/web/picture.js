/** A spectrogram picture: the PNG's text and pixels, made smaller step by step, and drawn in tiles. */

const SIGNATURE = 8;
const DECODED_COLUMNS = 4096;
const TILE_COLUMNS = 512;
const MOST_TILES = 96;
const GREY = 0;

/** The bytes of a URL; data: URLs are decoded here, since a page's policy may forbid to fetch them. */
export async function bytesOf(url) {
  if (url.startsWith("data:")) {
    const [head, body] = [url.slice(0, url.indexOf(",")), url.slice(url.indexOf(",") + 1)];
    if (!head.endsWith(";base64")) return new TextEncoder().encode(decodeURIComponent(body));
    return Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
  }
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** The chunk `IHDR`'s colour type and the text chunks (iTXt, not compressed) of a PNG (PNG 1.2, chapters 3 and 4). */
export function pngFacts(bytes) {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const facts = { colourType: undefined, text: {} };
  for (let at = SIGNATURE; at + 8 <= bytes.length;) {
    const length = data.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (kind === "IHDR") facts.colourType = body[9];
    if (kind === "IDAT") break;
    if (kind === "iTXt") {
      const keyEnd = body.indexOf(0);
      const languageEnd = body.indexOf(0, keyEnd + 3);
      const translationEnd = body.indexOf(0, languageEnd + 1);
      const key = new TextDecoder().decode(body.subarray(0, keyEnd));
      if (body[keyEnd + 1] === 0) facts.text[key] = new TextDecoder().decode(body.subarray(translationEnd + 1));
    }
    at += 12 + length;
  }
  return facts;
}

/** Read a picture; `stated` is the spec of one that carries none, `seconds` the length of one that was made smaller. */
export async function readPicture(url, stated = null, seconds = null) {
  const bytes = await bytesOf(url);
  const facts = pngFacts(bytes);
  const spec = stated ?? JSON.parse(facts.text.melspec ?? "null");
  if (!spec) throw new Error("the picture does not say how it was made");
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), {
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  });
  const channels = facts.colourType === GREY || spec.channels === "grey" ? 1 : 3;
  const planes = await readPlanes(bitmap, channels, spec);
  const picture = new Picture(bitmap.width, bitmap.height, planes, spec, seconds);
  bitmap.close();
  return picture;
}

/** Planes of levels, row 0 the highest band and 255 the loudest, one for grey or left, mid and right. */
async function readPlanes(bitmap, channels, spec) {
  const { width, height } = bitmap;
  const planes = Array.from({ length: channels }, () => new Uint8Array(width * height));
  const darkIsLoud = spec.law?.kind === "power" && spec.law.inverted;
  const canvas = new OffscreenCanvas(Math.min(width, DECODED_COLUMNS), height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let from = 0; from < width; from += DECODED_COLUMNS) {
    const columns = Math.min(DECODED_COLUMNS, width - from);
    context.drawImage(bitmap, from, 0, columns, height, 0, 0, columns, height);
    const { data } = context.getImageData(0, 0, columns, height);
    for (let row = 0; row < height; row++) {
      const to = (spec.low_at === "top" ? height - 1 - row : row) * width + from;
      for (let channel = 0; channel < channels; channel++) {
        const plane = planes[channel];
        for (let column = 0, at = row * columns * 4 + channel; column < columns; column++, at += 4) {
          plane[to + column] = darkIsLoud ? 255 - data[at] : data[at];
        }
      }
    }
    await new Promise((resume) => setTimeout(resume));
  }
  return planes;
}

/** The channels of a picture, by the names of its planes. */
export const CHANNELS = ["left", "mid", "right"];

/** A picture that has been read: `columns`, `rows`, `seconds`, `spec`, and what draws it. */
export class Picture {
  #levels;
  #tiles = new Map();

  constructor(columns, rows, planes, spec, seconds = null) {
    this.columns = columns;
    this.rows = rows;
    this.spec = spec;
    this.seconds = seconds ?? (columns * spec.hop_length) / spec.sample_rate;
    this.channels = planes.length === 1 ? ["mono"] : CHANNELS;
    this.#levels = planes.map((plane) => [{ columns, plane }]);
  }

  /** The level 0..255 at a time in seconds and a height 0..1. */
  levelAt(time, height, channel) {
    const column = Math.floor((time / this.seconds) * this.columns);
    const row = Math.floor((1 - height) * this.rows);
    if (column < 0 || column >= this.columns || row < 0 || row >= this.rows) return null;
    return this.#levels[this.#channelIndex(channel)][0].plane[row * this.columns + column];
  }

  /** Draw the part that `view` shows into the rectangle {x, y, width, height} of a canvas; `table` are the colours. */
  draw(context, view, area, channel, name, table) {
    const index = this.#channelIndex(channel);
    const wanted = (((view.end - view.start) / this.seconds) * this.columns) / area.width;
    const level = Math.max(0, Math.min(Math.floor(Math.log2(wanted)), Math.ceil(Math.log2(this.columns))));
    const { columns } = this.#smaller(index, level);
    const perSecond = this.columns / 2 ** level / this.seconds;
    const scale = area.width / (view.end - view.start);
    const rowHeight = area.height / ((view.high - view.low) * this.rows);
    const top = (1 - view.high) * this.rows;
    const xOf = (column) => Math.round(area.x + (column / perSecond - view.start) * scale);
    context.imageSmoothingEnabled = rowHeight < 6 && scale / perSecond < 6;
    const first = Math.max(0, Math.floor((view.start * perSecond) / TILE_COLUMNS));
    const last = Math.min(Math.ceil(columns / TILE_COLUMNS), Math.ceil((view.end * perSecond) / TILE_COLUMNS));
    for (let number = first; number < last; number++) {
      const tile = this.#tile(index, level, number, name, table);
      const [x, right] = [xOf(number * TILE_COLUMNS), xOf(number * TILE_COLUMNS + tile.width)];
      context.drawImage(
        tile,
        0,
        top,
        tile.width,
        (view.high - view.low) * this.rows,
        x,
        area.y,
        right - x,
        area.height,
      );
    }
  }

  #channelIndex(channel) {
    return Math.max(this.channels.indexOf(channel), 0) || (this.channels.length === 3 && channel !== "left" ? 1 : 0);
  }

  /** The plane with 2 ** level columns averaged into one. */
  #smaller(index, level) {
    const levels = this.#levels[index];
    while (levels.length <= level) {
      const { columns, plane } = levels.at(-1);
      const half = Math.max(1, columns >> 1);
      const next = new Uint8Array(half * this.rows);
      for (let row = 0; row < this.rows; row++) {
        for (let column = 0, at = row * columns; column < half; column++, at += 2) {
          next[row * half + column] = columns > 1 ? (plane[at] + plane[at + 1] + 1) >> 1 : plane[at];
        }
      }
      levels.push({ columns: half, plane: next });
    }
    return levels[level];
  }

  #tile(index, level, number, name, table) {
    const key = `${index} ${level} ${number} ${name}`;
    const known = this.#tiles.get(key);
    this.#tiles.delete(key);
    const tile = known ?? this.#coloured(this.#smaller(index, level), number * TILE_COLUMNS, table);
    this.#tiles.set(key, tile); // Last in the order of the map: what was used longest ago goes first.
    if (this.#tiles.size > MOST_TILES) this.#tiles.delete(this.#tiles.keys().next().value);
    return tile;
  }

  #coloured({ columns, plane }, from, table) {
    const width = Math.min(TILE_COLUMNS, columns - from);
    const tile = new OffscreenCanvas(width, this.rows);
    const context = tile.getContext("2d");
    const image = context.createImageData(width, this.rows);
    const pixels = new Uint32Array(image.data.buffer);
    for (let row = 0; row < this.rows; row++) {
      for (let column = 0, at = row * columns + from; column < width; column++, at++) {
        pixels[row * width + column] = table[plane[at]];
      }
    }
    context.putImageData(image, 0, 0);
    return tile;
  }
}
