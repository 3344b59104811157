/** The list of what was made and what is being made; drawings wait for each other. */

import { element } from "../elements.js";
import { button, empty } from "../studio/controls.js";
import { anySeed } from "../studio/seed.js";
import { attempt, say } from "../studio/notices.js";
import { DrawingCard } from "./drawing_card.js";
import { SoundCard } from "./sound_card.js";

const SHOWN = 24;
const CUT_SHORT = "This was not finished: the page was closed while it was made.";

/** The list; `reuse(settings)` puts settings into the form, `busy(whether)` hears whether a sound is being made. */
export class Sounds {
  #history;
  #model;
  #manifest;
  #reuse;
  #busy;
  #cards = new Map();
  #records = [];
  #aborts = new Map();
  #turn = Promise.resolve();
  #making = null;
  #starred = false;
  #most = SHOWN;
  #list = element("div", { className: "results" });
  #more = button("Show older", () => this.#showMore(), { kind: "quiet" });

  constructor({ history, model, manifest, reuse, busy }) {
    [this.#history, this.#model, this.#manifest] = [history, model, manifest];
    [this.#reuse, this.#busy] = [reuse, busy];
    this.node = element(
      "section",
      { className: "history", "aria-label": "Sounds" },
      element(
        "div",
        { className: "history-head" },
        element("h2", { textContent: "Sounds" }),
        element(
          "div",
          { className: "mel-names", role: "group", "aria-label": "Which sounds" },
          this.#filter("All", false),
          this.#filter("Starred", true),
        ),
      ),
      this.#list,
      this.#more,
    );
  }

  /** Show what the history has. */
  async open() {
    this.#records = await this.#history.all();
    for (const record of this.#records) if (!record.sound) this.#drawingCard(record).ended(CUT_SHORT, "interrupted");
    this.#show();
  }

  /** Make a sound; it waits for those before it. */
  make(settings) {
    const id = `${Date.now()}-${anySeed()}`;
    const record = { id, when: Date.now(), settings, seconds: null, command: "", starred: false };
    this.#records.unshift(record);
    const abort = new AbortController();
    this.#aborts.set(id, abort);
    this.#drawingCard(record).says("waits for its turn");
    this.#show();
    this.#cards.get(id).node.scrollIntoView({ block: "nearest" });
    return this.inTurn(() => this.#make(record, abort.signal));
  }

  /** Do something after what was asked for before it; resolves to what it gives. */
  inTurn(task) {
    const done = this.#turn.then(task);
    this.#turn = done.catch(() => {});
    return done;
  }

  async #make(record, signal) {
    if (signal.aborted) return; // It was removed while it waited.
    const card = this.#cards.get(record.id);
    this.#making = record;
    try {
      await attempt(() => this.#history.put(record)); // Before it is drawn: a tab that is killed shows it as cut short.
      card.says("waits for the model");
      await this.#draw(record, card, signal);
      this.#replaceCard(record);
      await attempt(() => this.#history.put(record));
    } catch (error) {
      if (signal.aborted) await this.#remove(record);
      else {
        card.ended(error.message);
        await this.#model.close();
      }
    } finally {
      this.#making = null;
      this.#aborts.delete(record.id);
      this.#busy(false);
      this.#show();
    }
  }

  async #draw(record, card, signal) {
    const engine = await until(this.#model.engine, signal);
    this.#busy(true);
    const { method, ...asked } = record.settings;
    card.says("reads the prompt");
    const drawn = await engine.draw({ ...asked, signal, onStep: (step) => card.step(step, this.#manifest) });
    card.says("makes the sound from the picture");
    const { sample_rate: rate } = this.#manifest.spec;
    const onBlock = async (channels) => {
      if (channels[0].length < Math.round(drawn.seconds * rate)) card.block(await engine.wav({ rate, channels }));
    };
    const sound = await engine.sound(drawn, { method, signal, onBlock });
    signal.throwIfAborted();
    const [picture, wav] = [await engine.png(drawn), await engine.wav(sound)];
    record.picture = new Blob([picture], { type: "image/png" });
    record.sound = new Blob([wav], { type: "audio/wav" });
    record.seconds = drawn.seconds;
    record.command = engine.command(record.settings);
  }

  // --- what the cards do ---

  /** Stop what is made, at the next step; what waits goes at once. */
  #cancel(record) {
    this.#aborts.get(record.id)?.abort();
    if (record !== this.#making) this.#remove(record);
  }

  async #star(record) {
    record.starred = !record.starred;
    await attempt(() => this.#history.put(record));
    this.#cards.get(record.id)?.update(); // Seen when it is kept: a tab that is closed then has it.
    if (this.#starred) this.#show();
  }

  async #remove(record) {
    this.#cards.get(record.id).close?.();
    this.#cards.delete(record.id);
    this.#records = this.#records.filter((each) => each !== record);
    this.#show();
    await attempt(() => this.#history.remove(record.id));
  }

  /** Remove a sound, and offer to bring it back. */
  async #delete(record) {
    await this.#remove(record);
    say(
      `Deleted “${record.settings.prompt}”.`,
      "note",
      button(
        "Bring it back",
        async () => {
          this.#records = [record, ...this.#records].sort((one, other) => other.when - one.when);
          this.#show();
          await attempt(() => this.#history.put(record));
        },
        { kind: "quiet" },
      ),
    );
  }

  async #again(record) {
    await this.#remove(record);
    this.make(record.settings);
  }

  // --- showing ---

  #drawingCard(record) {
    const card = new DrawingCard(record, {
      cancel: () => this.#cancel(record),
      again: () => this.#again(record),
      remove: () => this.#remove(record),
    });
    this.#cards.set(record.id, card);
    return card;
  }

  #soundCard(record) {
    const card = new SoundCard(record, {
      star: () => this.#star(record),
      reuse: () => this.#reuse(record.settings),
      vary: () => this.make({ ...record.settings, seed: anySeed() }),
      remove: () => this.#delete(record),
    });
    this.#cards.set(record.id, card);
    return card;
  }

  #replaceCard(record) {
    const { node: before, heard } = this.#cards.get(record.id);
    const held = before.contains(document.activeElement);
    const card = this.#soundCard(record);
    before.replaceWith(card.node);
    if (held) card.node.querySelector("button").focus();
    if (heard) card.takeOver(heard);
  }

  #show() {
    const chosen = this.#records.filter((record) => !this.#starred || record.starred);
    const shown = chosen
      .slice(0, this.#most)
      .map((record) => (this.#cards.get(record.id) ?? this.#soundCard(record)).node);
    this.#more.hidden = chosen.length <= this.#most;
    if (!shown.length) shown.push(this.#nothing());
    const list = this.#list;
    if (shown.length === list.childElementCount && shown.every((node, index) => list.children[index] === node)) return;
    for (const node of [...list.children]) if (!shown.includes(node)) node.remove();
    shown.forEach((node, index) => {
      if (list.children[index] !== node) list.insertBefore(node, list.children[index] ?? null);
    });
  }

  #nothing() {
    if (this.#starred) return empty("Nothing is starred", "The star on a sound keeps it here.");
    return empty(
      "Nothing yet",
      "Write what you want to hear and press Make music. The picture appears while it is drawn; then it plays.",
    );
  }

  #showMore() {
    this.#most += SHOWN;
    this.#show();
  }

  #filter(text, starred) {
    const choose = ({ target }) => {
      this.#starred = starred;
      for (const each of target.parentElement.children) each.setAttribute("aria-pressed", String(each === target));
      this.#show();
    };
    return element("button", { type: "button", textContent: text, "aria-pressed": String(!starred), onclick: choose });
  }
}

/** What a promise gives, unless the signal aborts first. */
function until(promise, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}
