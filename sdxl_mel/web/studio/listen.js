/** A button with which a sound is heard while it is made, from its blocks as they come. */

import { element } from "../elements.js";
import { icon } from "../icons.js";
import { BlockStream } from "../sound.js";
import { button, duration } from "./controls.js";

export class ListenButton {
  node = button("Listen", () => this.#toggle(), { name: "play", kind: "quiet", hidden: true });
  #stream = new BlockStream();

  /** Take the next block, a WAV file of 16 bits. */
  append(bytes) {
    this.#stream.append(bytes);
    this.#show();
  }

  /** Begin with another sound. */
  restart() {
    this.#stream.pause();
    this.#stream = new BlockStream();
    this.node.hidden = true;
  }

  /** The stream that is heard, or null. */
  get heard() {
    return this.#stream.playing ? this.#stream : null;
  }

  async #toggle() {
    if (this.heard) this.#stream.pause();
    else await this.#stream.play();
    this.#show();
  }

  #show() {
    const { playing, seconds } = this.#stream;
    this.node.hidden = false;
    this.node.innerHTML = icon(playing ? "pause" : "play");
    this.node.append(element("span", { textContent: `${playing ? "Pause" : "Listen"}: ${duration(seconds)} are there` }));
  }
}
