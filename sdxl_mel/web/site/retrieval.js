/** The sound of a picture by workers: that of a tile by two of them, that of a long one block by block. */

import { joined } from "./bytes.js";
import { BLOCK_FRAMES, withoutEqualChannels } from "./inversion.js";
import { framesOf } from "./levels.js";

const LEAST_HALVED = 64; // Frames: of fewer each worker would mostly wait.

/**
 * The samples of each channel of a picture; `options` are `method` and `loop`. `onBlock` is given each block as soon as
 * it is made, `signal` stops.
 */
export async function retrieveSound(crew, picture, spec, options, { signal, onBlock }) {
  const { levels, channels, height, width } = picture;
  const whole = withoutEqualChannels({ levels, channels, height, width }, spec);
  const told = { spec, options };
  if (crew.length > 1 && !options.loop && width >= LEAST_HALVED && width <= BLOCK_FRAMES) {
    const halves = await retrieveHalves(crew, whole, told, signal);
    const sounds = samplesJoined(halves);
    onBlock(sounds);
    return sounds;
  }
  const blocks = [];
  const heard = (block) => {
    blocks.push(block);
    onBlock(block);
  };
  await crew.at(-1).do("sound", { ...told, picture: whole }, { signal, onBlock: heard });
  return samplesJoined(blocks);
}

/** The sounds of the two halves of a picture, each made by one worker; what they share they tell each other. */
async function retrieveHalves(crew, picture, told, signal) {
  const middle = Math.floor(picture.width / 2);
  const halves = [framesOf(picture, 0, middle), framesOf(picture, middle, picture.width - middle)];
  const { port1, port2 } = new MessageChannel();
  const blocks = [];
  const made = [port1, port2].map((port, half) => {
    const content = { ...told, picture: halves[half], port, before: half === 1 };
    return crew[half].do("sound", content, { transfer: [port], signal, onBlock: (block) => (blocks[half] = block) });
  });
  await Promise.all(made);
  return blocks;
}

/** Blocks that follow each other, one array a channel, as one. */
function samplesJoined(blocks) {
  return blocks[0].map((_, channel) => joined(blocks.map((block) => block[channel])));
}
