/** The tab Data: a prepared set to see, hear and correct; changes stand in a file of their own beside it. */

import "../player.js";
import { timeText } from "../axes.js";
import { element } from "../elements.js";
import { ask, post, query } from "./api.js";
import { button, empty, labelled, select } from "./controls.js";
import { attempt, say } from "./notices.js";

const PAGE = 24;
const SPLITS = ["train", "validation", "test", "regularization"];

/** The tab. */
export class Data {
  #store;
  #parts;
  #dataset = null;
  #offset = 0;
  #filters = { split: "", phrase: "", doubt: "", track: "" };
  #asked = 0;

  constructor(store) {
    this.#store = store;
    this.node = element("div", { className: "data" });
  }

  async open() {
    const parts = {
      which: select([], undefined, (id) => this.#choose(id)),
      overview: element("div", { className: "overview" }),
      filters: element("div", { className: "inline filters" }),
      clips: element("div", { className: "results" }),
      rejects: element("details", { className: "rejects" }),
      more: button("Show more", () => this.#read(this.#offset + PAGE), { kind: "quiet" }),
    };
    this.#parts = parts;
    this.node.append(
      element("div", { className: "panel row" }, labelled("Data set", parts.which), parts.overview),
      parts.filters,
      parts.clips,
      parts.more,
      parts.rejects,
    );
    this.#store.addEventListener("artefacts", () => this.#readSets());
    this.#store.addEventListener("job", ({ detail }) => this.#prepared(detail));
    this.#store.addEventListener(
      "override",
      ({ detail }) => detail.dataset === this.#dataset?.id && this.#overridden(detail),
    );
    await this.#readSets();
  }

  async #readSets() {
    const { which, clips, more, filters, rejects, overview } = this.#parts;
    const sets = await this.#store.artefacts("dataset");
    which.replaceChildren(...sets.map((each) => element("option", { value: each.id, textContent: each.name })));
    which.disabled = !sets.length;
    for (const part of [more, filters, rejects]) part.hidden = !sets.length;
    if (!sets.length) {
      overview.replaceChildren();
      const command = element("pre", { textContent: "sdxl-mel prepare MY-MUSIC --out data/my-music --preset std" });
      return clips.replaceChildren(
        empty(
          "No prepared data set below this folder",
          "Make one from a folder of music with captions; it appears here by itself.",
          command,
        ),
      );
    }
    if (this.#dataset && sets.some(({ id }) => id === this.#dataset.id)) which.value = this.#dataset.id;
    else await this.#choose(sets[0].id);
  }

  #prepared({ stage, state, artefact }) {
    if (stage === "prepare" && state === "finished" && artefact === this.#dataset?.id) this.#choose(artefact);
  }

  async #choose(id) {
    const dataset = await attempt(() => ask(`/datasets/${id}`));
    if (!dataset) return;
    this.#dataset = { ...dataset, id };
    const counts = Object.entries(dataset.counts).map(([split, count]) => `${split}: ${count.clips} clips of ${count.tracks} tracks`);
    const made = this.#store.newest("prepare").find((job) => job.artefact === id);
    const again = made
      ? [button("Prepare again with the corrections", (event, act) => this.#prepareAgain(made, act))]
      : [];
    this.#parts.overview.replaceChildren(
      element("p", { className: "meta", textContent: counts.join(" · ") }),
      ...(dataset.notes ?? []).map((note) => element("p", { className: "note", textContent: note })),
      ...again,
    );
    this.#showFilters();
    this.#showRejects();
    await this.#read(0);
  }

  /** Do the job that made a set again: what was corrected counts from then on. */
  async #prepareAgain({ name, settings }, made) {
    const job = await attempt(() => post("/jobs", { stage: "prepare", name, settings }), made);
    if (job) say("The set is prepared again; it is shown anew when that is done.");
  }

  #showFilters() {
    const filtered = (name) => (value) => {
      this.#filters[name] = value;
      this.#read(0);
    };
    const phrase = element("input", { type: "search", value: this.#filters.phrase, placeholder: "violin" });
    phrase.addEventListener("change", () => filtered("phrase")(phrase.value));
    const splits = select([["", "all"], ...SPLITS.map((each) => [each, each])], this.#filters.split, filtered("split"));
    const doubts = select(
      [
        ["", "all"],
        ["true", "doubtful"],
        ["false", "without doubt"],
      ],
      this.#filters.doubt,
      filtered("doubt"),
    );
    this.#parts.filters.replaceChildren(
      labelled("Split", splits),
      labelled("Phrase in the caption", phrase),
      labelled("Captions", doubts),
    );
  }

  #showRejects() {
    const { rejects } = this.#parts;
    const reasons = Object.entries(this.#dataset.rejects ?? {});
    rejects.hidden = !reasons.length;
    const list = element("ul", { className: "plain" });
    const read = async (reason) => {
      const found = await attempt(() => ask(query(`/datasets/${this.#dataset.id}/rejects`, { reason })));
      if (!found) return;
      list.replaceChildren(
        ...found.rejects.map((each) =>
          element("li", { textContent: `${each.track ?? each.what}: ${each.reason ?? each.why}` }),
        ),
      );
    };
    const pairs = [["", "choose a reason"], ...reasons.map(([reason, count]) => [reason, `${reason} (${count})`])];
    rejects.replaceChildren(
      element("summary", { textContent: `Left out: ${reasons.reduce((sum, [, count]) => sum + count, 0)}` }),
      labelled("Reason", select(pairs, "", read)),
      list,
    );
  }

  async #read(offset) {
    const asked = ++this.#asked;
    const path = query(`/datasets/${this.#dataset.id}/clips`, { ...this.#filters, offset, limit: PAGE });
    const found = await attempt(() => ask(path));
    if (!found || asked !== this.#asked) return;
    this.#offset = offset;
    const cards = found.clips.map((clip) => this.#card(clip));
    const { clips, more } = this.#parts;
    if (offset) clips.append(...cards);
    else
      clips.replaceChildren(
        ...(cards.length ? cards : [empty("No clip passes these filters", "Take one of them away.")]),
      );
    more.hidden = offset + PAGE >= found.total;
  }

  #card(clip) {
    const player = element("mel-player", { label: `${clip.track} at ${timeText(clip.start, 1)} s` });
    player.sources = [{ picture: clip.picture, sound: clip.sound, name: clip.track }];
    const state = element("p", { className: "meta" });
    const caption = element("textarea", {
      rows: 2,
      value: clip.override?.caption ?? clip.caption ?? clip.captions[0] ?? "",
    });
    const split = select(
      [["", `as prepared (${clip.split})`], ...SPLITS.map((each) => [each, each])],
      clip.override?.split ?? "",
    );
    const exclude = element("input", {
      type: "text",
      value: clip.override?.exclude ?? "",
      placeholder: "a reason leaves the track out",
    });
    const original = clip.caption ?? clip.captions[0] ?? "";
    const put = (override, made) =>
      attempt(async () => {
        await ask(`/datasets/${this.#dataset.id}/overrides/${encodeURIComponent(clip.track)}`, {
          method: "PUT",
          body: override,
        });
        clip.override = Object.keys(override).length ? override : null;
        show();
        say(clip.override ? "Kept beside the set; prepare it again for it to count." : "As it was prepared.");
      }, made);
    const show = () => {
      const where = `${clip.track} at ${timeText(clip.start, 1)} s`;
      const words = [clip.split, where, clip.override ? "changed by you" : ""];
      state.textContent = words.filter(Boolean).join(" · ");
      card.classList.toggle("changed", Boolean(clip.override));
    };
    const save = (event, made) => {
      const override = {};
      if (caption.value.trim() && caption.value.trim() !== original) override.caption = caption.value.trim();
      if (split.value) override.split = split.value;
      if (exclude.value.trim()) override.exclude = exclude.value.trim();
      put(override, made);
    };
    const undo = (event, made) => {
      [caption.value, split.value, exclude.value] = [original, "", ""];
      put({}, made);
    };
    const edit = element(
      "details",
      { className: "edit" },
      element("summary", { textContent: "Correct" }),
      labelled("Caption of the track", caption),
      element("div", { className: "inline" }, labelled("Split", split), labelled("Leave out", exclude)),
      element(
        "div",
        { className: "actions" },
        button("Save", save, { kind: "primary" }),
        button("As prepared", undo, { kind: "quiet" }),
      ),
    );
    const card = element(
      "article",
      { className: "card", "aria-label": `Clip ${clip.number}` },
      player,
      state,
      element("p", { className: "caption", textContent: original }),
      this.#history(clip),
      edit,
    );
    card.dataset.track = clip.track;
    show();
    return card;
  }

  /** The captions before and after, with the reason of every edit. */
  #history(clip) {
    const rows = clip.history ?? (clip.before ? [{ before: clip.before, after: clip.caption, edits: clip.edits }] : []);
    const changed = rows.filter((row) => row.before !== row.after || row.why);
    if (!changed.length) return "";
    const lines = changed.map((row) => {
      const reasons = [row.why, ...(row.edits ?? []).map((each) => each.reason ?? each.rule)].filter(Boolean);
      return element(
        "li",
        {},
        element("del", { textContent: row.before }),
        element("ins", { textContent: row.after || "dropped" }),
        element("small", { textContent: [...new Set(reasons)].join(", ") }),
      );
    });
    return element(
      "details",
      { className: "captions" },
      element("summary", { textContent: `Captions before and after (${changed.length})` }),
      element("ul", { className: "plain" }, ...lines),
    );
  }

  /** Another tab changed a track. */
  #overridden({ track, override }) {
    for (const card of this.#parts.clips.querySelectorAll(".card")) {
      if (card.dataset.track !== track) continue;
      const changed = override && Object.keys(override).length > 0;
      card.classList.toggle("changed", Boolean(changed));
    }
  }
}
