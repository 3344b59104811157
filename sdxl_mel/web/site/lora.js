/** LoRAs from .safetensors files, put into the factors that a UNet was exported with. */

const READERS = {
  F32: (data, at) => data.getFloat32(4 * at, true),
  F16: (data, at) => halfAt(data.getUint16(2 * at, true)),
  BF16: (data, at) => singleOf(data.getUint16(2 * at, true) << 16),
};
const BYTES = { F32: 4, F16: 2, BF16: 2 };
const LARGEST_HEADER = 1e8;
const WORD = new DataView(new ArrayBuffer(4));
/** How files name the two matrices of a layer: before and after its path, by kohya, diffusers and older diffusers. */
const DIALECTS = [
  { start: "lora_unet_", separator: "_", down: ".lora_down.weight", up: ".lora_up.weight" },
  { start: "unet.", separator: ".", down: ".lora_A.weight", up: ".lora_B.weight" },
  { start: "unet.", separator: ".", down: ".lora.down.weight", up: ".lora.up.weight" },
];
const OF_UNET = /^(lora_)?unet[._]/;
const ALPHA = ".alpha";
const BLOCK_PATH = /^(down|mid|up)_block(?:s\.(\d+))?\.(\w+)\.(\d+)\.(.+)$/;
const RESNET_NAMES = {
  conv1: "in_layers.2",
  time_emb_proj: "emb_layers.1",
  conv2: "out_layers.3",
  conv_shortcut: "skip_connection",
};
const END_NAMES = {
  conv_in: "input_blocks.0.0",
  conv_out: "out.2",
  "time_embedding.linear_1": "time_embed.0",
  "time_embedding.linear_2": "time_embed.2",
  "add_embedding.linear_1": "label_emb.0.0",
  "add_embedding.linear_2": "label_emb.0.2",
};

/** The tensors of a .safetensors file: {shape, read(index)} by name. Throws an Error for another kind of file. */
export function readTensors(buffer) {
  const data = new DataView(buffer);
  const size = buffer.byteLength >= 8 ? Number(data.getBigUint64(0, true)) : Infinity;
  if (size > Math.min(LARGEST_HEADER, buffer.byteLength - 8)) throw new Error("This is not a .safetensors file.");
  const { __metadata__: _, ...entries } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
  const tensors = new Map();
  for (const [name, { dtype, shape, data_offsets: [first, last] }] of Object.entries(entries)) {
    if (!READERS[dtype]) throw new Error(`${name} holds numbers of kind ${dtype}; this page reads F32, F16 and BF16.`);
    const count = shape.reduce((product, each) => product * each, 1);
    if (last - first !== count * BYTES[dtype] || 8 + size + last > buffer.byteLength) {
      throw new Error("This .safetensors file is damaged.");
    }
    const content = new DataView(buffer, 8 + size + first, last - first);
    tensors.set(name, { shape, count, read: (at) => READERS[dtype](content, at) });
  }
  return tensors;
}

/**
 * {content, unused}: the content of the file of factors of a manifest's `lora`, filled from the tensors of another
 * LoRA, zeros where it changes nothing, and the names of what is not for the UNet. Throws an Error for one that does not
 * belong to this UNet, or needs a higher rank.
 */
export function filledFactors({ rank, factors, file }, tensors) {
  const content = new Float32Array(file.bytes / Float32Array.BYTES_PER_ELEMENT);
  const originalOf = originalNames(factors.map(({ name }) => name));
  const unused = new Set(tensors.keys());
  for (const { name, up, down } of factors) {
    const found = foundIn(tensors, name, originalOf(name));
    if (!found) continue;
    found.names.forEach((each) => unused.delete(each));
    const ownRank = found.down.shape[0];
    if (ownRank > rank) {
      throw new Error(`This LoRA has rank ${ownRank}, these models were exported for rank ${rank} at most.`);
    }
    const [outputs, inputs] = [up[1][0], down[1].slice(1).reduce((product, size) => product * size, 1)];
    if (found.down.count !== ownRank * inputs || found.up.count !== outputs * ownRank) {
      throw new Error(`This LoRA was made for another model: ${name} has another size.`);
    }
    const scale = (found.alpha?.read(0) ?? ownRank) / ownRank;
    const [upAt, downAt] = [up[0], down[0]].map((offset) => offset / Float32Array.BYTES_PER_ELEMENT);
    for (let at = 0; at < found.down.count; at++) content[downAt + at] = found.down.read(at);
    for (let row = 0; row < outputs; row++) {
      for (let each = 0; each < ownRank; each++) {
        content[upAt + row * rank + each] = scale * found.up.read(row * ownRank + each);
      }
    }
  }
  const foreign = [...unused].find((name) => OF_UNET.test(name));
  if (foreign) throw new Error(`This LoRA changes what these models have no place for: ${foreign}.`);
  if (content.every((number) => number === 0)) throw new Error("This file holds no LoRA of a UNet.");
  return { content, unused: [...unused] };
}

/** {down, up, alpha, names} of the layer at a path, by whichever name a file has it. */
function foundIn(tensors, path, original) {
  for (const { start, separator, down, up } of DIALECTS) {
    for (const layout of [path, original]) {
      const module = start + layout.replaceAll(".", separator);
      if (!tensors.has(module + down) || !tensors.has(module + up)) continue;
      const names = [module + down, module + up, module + ALPHA];
      return { down: tensors.get(names[0]), up: tensors.get(names[1]), alpha: tensors.get(names[2]), names };
    }
  }
  return null;
}

/** From a layer's path in diffusers to its name in Stability's layout, which kohya's files have: models/layouts.py. */
function originalNames(paths) {
  const layers = 1 + Math.max(...paths.map((path) => Number(/^down_blocks\.\d+\.resnets\.(\d+)/.exec(path)?.[1] ?? 0)));
  const attends = (block) => paths.some((path) => path.startsWith(`${block}.attentions.`));
  return (path) => {
    if (END_NAMES[path]) return END_NAMES[path];
    const [, side, number, kind, index, rest] = BLOCK_PATH.exec(path) ?? [];
    if (!side) return path;
    const inner = kind === "resnets" ? (RESNET_NAMES[rest] ?? rest) : rest;
    const place = kind === "attentions" ? 1 : 0;
    if (side === "mid") return `middle_block.${place ? 1 : 2 * index}.${inner}`;
    const first = number * (layers + 1);
    if (side === "down" && kind === "downsamplers") return `input_blocks.${first + layers + 1}.0.op`;
    if (side === "down") return `input_blocks.${first + Number(index) + 1}.${place}.${inner}`;
    if (kind === "upsamplers") return `output_blocks.${first + layers}.${attends(`up_blocks.${number}`) ? 2 : 1}.conv`;
    return `output_blocks.${first + Number(index)}.${place}.${inner}`;
  };
}

function halfAt(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : (2 ** -14 * fraction) / 1024);
}

function singleOf(bits) {
  WORD.setInt32(0, bits);
  return WORD.getFloat32(0);
}
