/** The sources of a player: pairs of a picture and a sound, {picture: url, sound: url or null, name}. */

import { bytesOf, readPicture } from "./picture.js";
import { Transport, decodeSounds } from "./sound.js";

/** The sources that the children <img> and <audio> of an element state; what is fewer is the last one's. */
export function sourcesOfChildren(host) {
  const [pictures, sounds] = ["img", "audio"].map((kind) => [...host.querySelectorAll(`:scope > ${kind}`)]);
  return Array.from({ length: Math.max(pictures.length, sounds.length) }, (_, k) => ({
    picture: (pictures[k] ?? pictures.at(-1))?.getAttribute("src") ?? null,
    sound: sounds[k]?.getAttribute("src") ?? null,
    name: sounds[k]?.title || pictures[k]?.alt || "",
  }));
}

/** The picture of every source, null where it has none; each is read once. `spec` and `seconds` as in `readPicture`. */
export async function picturesOf(sources, spec, seconds) {
  const urls = [...new Set(sources.map((source) => source.picture).filter(Boolean))];
  const read = await Promise.all(urls.map((url) => readPicture(url, spec, seconds)));
  return sources.map((source) => read[urls.indexOf(source.picture)] ?? null);
}

/** What plays the sounds of all sources at the same place; null where there is none. One without has the first's. */
export async function transportOf(sources) {
  const urls = sources.map((source) => source.sound);
  if (!urls.some(Boolean)) return null;
  const { context, buffers } = await decodeSounds(
    await Promise.all(urls.map((url) => bytesOf(url ?? urls.find(Boolean)))),
  );
  return new Transport(context, buffers);
}
