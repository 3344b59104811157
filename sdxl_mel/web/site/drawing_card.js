/** The card of a sound while it is made: its picture so far, how far it is, and a way to stop it. */

import { chosenColours } from "../colours.js";
import { element } from "../elements.js";
import { button, duration, progressBar } from "../studio/controls.js";
import { ListenButton } from "../studio/listen.js";
import { paintLatents } from "./preview.js";

/** The card of a record that has no sound yet; `on` has cancel(record), again(record), remove(record). */
export class DrawingCard {
  #record;
  #on;
  #started = null;
  #listen = new ListenButton();
  #canvas = element("canvas", { className: "latents", "aria-label": "The picture so far", role: "img", hidden: true });
  #state = element("div", { className: "state" });
  #cancel = button("Cancel", () => this.#on.cancel(this.#record), { name: "stop", kind: "quiet" });
  #actions = element("div", { className: "actions" });

  constructor(record, on) {
    [this.#record, this.#on] = [record, on];
    const { prompt, seed } = record.settings;
    this.node = element(
      "article",
      { className: "card running", "aria-label": `${prompt}, seed ${seed}` },
      element("header", {}, element("h3", { textContent: prompt }), this.#listen.node),
      this.#canvas,
      element("footer", {}, this.#state, this.#actions),
    );
  }

  /** Say what it waits for or what is done to it, where nobody knows how long that takes. */
  says(words) {
    this.#runs(element("p", { className: "meta", textContent: words }));
  }

  #runs(said) {
    this.#show("running", said, this.#cancel);
  }

  /** Let a block of the sound be heard, a WAV file, while the rest is made. */
  block(wav) {
    this.#listen.append(wav);
  }

  /** The stream of blocks that is heard, or null. */
  get heard() {
    return this.#listen.heard;
  }

  /** Show a step {number, total, latents, rows, columns}; `manifest` says how latents look. */
  step({ number, total, ...picture }, { preview, spec }) {
    this.#started ??= { at: performance.now(), number };
    const each = (performance.now() - this.#started.at) / (number - this.#started.number);
    const left = Number.isFinite(each) ? (each * (total - number)) / 1000 : 0;
    const words = [`step ${number} of ${total}`, left >= 2 ? `${duration(left)} left` : ""];
    const bar = this.#state.querySelector("progress[value]");
    if (bar) {
      bar.value = number / total;
      bar.nextSibling.textContent = words.filter(Boolean).join(" · ");
    } else {
      this.#runs(progressBar(number / total, words.filter(Boolean).join(" · ")));
    }
    if (!preview || !picture.latents) return;
    paintLatents(this.#canvas, picture, preview, spec, chosenColours());
    this.#canvas.hidden = false;
  }

  /** Say that it ended without a sound: `sentence` says why. */
  ended(sentence, state = "failed") {
    this.#canvas.hidden = true;
    this.close();
    this.#show(
      state,
      element("p", { className: state === "failed" ? "error" : "meta", textContent: sentence }),
      button("Make it again", () => this.#on.again(this.#record), { name: "again", kind: "quiet" }),
      button("Remove", () => this.#on.remove(this.#record), { name: "close", kind: "quiet" }),
    );
  }

  /** Let nothing of it be heard any more. */
  close() {
    this.#listen.restart();
  }

  #show(state, said, ...actions) {
    this.node.dataset.state = state;
    this.#state.replaceChildren(said);
    if (this.#actions.firstChild !== actions[0]) this.#actions.replaceChildren(...actions); // It keeps the focus.
  }
}
