/** The card of a sound that was made: its player, its files, and what can be done with it. */

import "../player.js";
import { timeText } from "../axes.js";
import { element } from "../elements.js";
import { icon, iconButton } from "../icons.js";
import { button, menu } from "../studio/controls.js";
import { copied } from "../studio/notices.js";
import { linkTo } from "./settings_form.js";

const LONGEST_NAME = 48;

/** The card of a record of the history; `on` has star(record), reuse(record), vary(record), remove(record). */
export class SoundCard {
  #star;
  #player = element("mel-player");
  #urls = [];

  constructor(record, on) {
    this.record = record;
    this.#star = iconButton("star", "Star", () => on.star(record), { "aria-pressed": "false" });
    this.node = this.#build(on);
    this.update();
  }

  /** Show the record as it is now. */
  update() {
    this.#star.innerHTML = icon(this.record.starred ? "starred" : "star");
    this.#star.setAttribute("aria-pressed", String(this.record.starred));
  }

  /** Go on with what was heard of this sound while it was made; the card is in the page. */
  takeOver(stream) {
    return this.#player.follow(stream);
  }

  /** Give back what the card holds of its files. */
  close() {
    this.#urls.forEach((url) => URL.revokeObjectURL(url));
  }

  #build(on) {
    const { record } = this;
    const { settings } = record;
    const title = `${settings.prompt}, seed ${settings.seed}`;
    const [picture, sound] = [record.picture, record.sound].map((file) => URL.createObjectURL(file));
    this.#urls = [picture, sound];
    const player = this.#player;
    player.setAttribute("label", title);
    player.sources = [{ picture, sound, name: "" }];
    const link = (text, href, suffix) =>
      element("a", { href, download: `${fileName(settings)}.${suffix}`, textContent: text });
    const files = menu(
      "download",
      "Download, copy or delete",
      link("Sound (WAV)", sound, "wav"),
      link("Picture (PNG) with its format", picture, "png"),
      button("Copy the command that makes this", () => copied(record.command), { name: "copy", kind: "quiet" }),
      button("Copy a link to this", () => copied(linkTo(settings)), { name: "copy", kind: "quiet" }),
      button("Delete", () => on.remove(record), { name: "close", kind: "quiet" }),
    );
    return element(
      "article",
      { className: "card", "aria-label": title },
      element("header", {}, element("h3", { textContent: settings.prompt }), this.#star, files),
      player,
      element(
        "footer",
        {},
        element("p", { className: "meta", textContent: facts(record) }),
        element(
          "div",
          { className: "actions" },
          button("Vary", () => on.vary(record), {
            name: "vary",
            kind: "quiet",
            title: "The same settings with another seed",
          }),
          button("Use settings", () => on.reuse(record), {
            name: "settings",
            kind: "quiet",
            title: "Put its settings into the form",
          }),
        ),
      ),
    );
  }
}

/** The name of the files of a sound: the prompt's words and the seed. */
function fileName({ prompt, seed }) {
  const words = prompt
    .normalize("NFKD")
    .toLowerCase()
    .match(/[\p{L}\p{N}]+/gu) ?? ["sound"];
  return `${words.join("-").slice(0, LONGEST_NAME).replace(/-$/, "")}-${seed}`;
}

function facts({ settings, seconds }) {
  const parts = [`seed ${settings.seed}`, `${timeText(seconds, 1)} s`, `${settings.steps} steps`];
  if (settings.loop) parts.push("loop");
  const { lora, loraScale = 1 } = settings;
  if (lora || loraScale !== 1) parts.push(`${lora ?? "LoRA"} at ${loraScale}`);
  return parts.join(" · ");
}
