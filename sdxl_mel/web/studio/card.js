/** A result as a card: its player, and what can be done with it. */

import "../player.js";
import { hertzText, timeText } from "../axes.js";
import { element } from "../elements.js";
import { icon, iconButton } from "../icons.js";
import { post } from "./api.js";
import { button } from "./controls.js";
import { attempt, say } from "./notices.js";

/**
 * The card of a result. `on` says what the tab does: vary(job, result), start(job, result), compare(job, result),
 * reuse(job, result), edit(job, result, {prompt, regions or extend or loop}); what is absent has no button. `title` is
 * the prompt where it is not given.
 */
export class ResultCard {
  #store;
  #on;
  #parts = {};

  constructor(job, result, store, on, title = job.settings.prompt ?? result.prompt) {
    [this.job, this.result, this.#store, this.#on] = [job, result, store, on];
    this.node = this.#build(title);
    this.update(job, result, []);
  }

  /** Go on with what was heard of this result while it was made. */
  async takeOver(stream) {
    await null; // Until the card is in the page.
    await this.#parts.player.follow(stream);
  }

  /** Show a job and its result as they are now; `others` are results to switch to: [{name, result}]. */
  update(job, result, others) {
    const { player, star } = this.#parts;
    [this.job, this.result] = [job, result];
    if (this.#parts.compare) this.#parts.compare.hidden = others.length > 0 || Boolean(job.settings.ab);
    star.innerHTML = icon(result.starred ? "starred" : "star");
    star.setAttribute("aria-pressed", String(result.starred));
    const own = { picture: result.picture, sound: result.sound, name: others.length ? modelName(job) : "" };
    const sources = [
      own,
      ...others.map((each) => ({ picture: each.result.picture, sound: each.result.sound, name: each.name })),
    ];
    if (JSON.stringify(sources) !== JSON.stringify(player.sources)) player.sources = sources;
  }

  #build(prompt) {
    const { job, result } = this;
    const player = element("mel-player", { label: `${prompt}, seed ${result.seed}` });
    if (this.#on.edit && result.sound) player.setAttribute("brush", "");
    const seams = result.seams ?? [];
    if (seams.length)
      player.setAttribute("marks", JSON.stringify(seams.map((at) => [Math.max(at - 0.05, 0), at + 0.05])));
    const star = iconButton("star", "Star", () => this.#star(), { "aria-pressed": "false" });
    this.#parts = { player, star };
    const acts = [
      ["vary", "Vary", "vary", "The same settings with a new seed"],
      ["start", "Start from it", "again", "Use it as the sound to start from"],
      ["compare", "Compare with base", "copy", "Draw the same seed without the LoRAs; X switches"],
      ["reuse", "Use settings", "settings", "Put its settings into the form"],
    ].filter(([act]) => this.#on[act] && (act !== "compare" || hasLora(job)) && (act !== "start" || result.sound));
    const buttons = acts.map(([act, text, name, title]) => {
      const made = button(text, () => this.#on[act](this.job, this.result), { name, title, kind: "quiet" });
      this.#parts[act] = made;
      return made;
    });
    const panel = this.#on.edit && result.sound ? this.#editPanel(player) : null;
    if (panel)
      buttons.push(
        button("Edit", () => (panel.hidden = !panel.hidden), {
          name: "brush",
          kind: "quiet",
          title: "Draw a part of it anew",
        }),
      );
    return element(
      "article",
      { className: "card", "aria-label": `${prompt}, seed ${result.seed}` },
      element("header", {}, element("h3", { textContent: prompt }), star, this.#downloads()),
      player,
      panel ?? "",
      element(
        "footer",
        {},
        element("p", { className: "meta", textContent: facts(job, result) }),
        ...notes(job).map((textContent) => element("p", { className: "note", textContent })),
        element("div", { className: "actions" }, ...buttons),
      ),
    );
  }

  #downloads() {
    const { job, result } = this;
    const link = (text, href) => element("a", { href: `${href}?download=true`, download: "", textContent: text });
    const panel = element("div", { className: "menu", popover: "auto" });
    panel.append(
      ...(result.sound ? [link("Sound", result.sound)] : []),
      link("Picture", result.picture),
      ...(job.settings.ab ? [reportLink(job, "How far they are apart")] : []),
      button("Copy the command that makes this", () => copied(result.command || job.command), {
        name: "copy",
        kind: "quiet",
      }),
      button("Remove from the history", () => attempt(() => post(`/jobs/${job.id}/remove`)), {
        name: "close",
        kind: "quiet",
      }),
    );
    const opener = iconButton("download", "Download, copy or remove", () => {
      const box = opener.getBoundingClientRect();
      panel.style.top = `${box.bottom + 4}px`;
      panel.style.right = `${innerWidth - box.right}px`;
      panel.togglePopover();
    });
    return element("span", {}, opener, panel);
  }

  /** What a brush leads to: the marked regions drawn anew; longer, or as a loop, where the server can. */
  #editPanel(player) {
    const { edit } = this.#on;
    const prompt = element("input", {
      type: "text",
      "aria-label": "Prompt for what is drawn",
      placeholder: "what to play there",
    });
    const words = element("span", { className: "meta" });
    const seconds = element("input", {
      type: "number",
      min: 1,
      max: 600,
      step: "any",
      value: 4,
      "aria-label": "Seconds to add",
    });
    const send = (change) => edit(this.job, this.result, { prompt: prompt.value.trim(), ...change });
    const redraw = button("Draw anew", () => send({ regions: player.regions }), { kind: "primary" });
    const longer = button("Make longer by", () => send({ extend: Number(seconds.value) }), {
      kind: "quiet",
      name: "plus",
    });
    const more = [
      element("span", { className: "add" }, longer, seconds, " s"),
      button("Make it a loop", () => send({ loop: true }), { kind: "quiet", name: "loop" }),
    ];
    const panel = element("form", { className: "redraw", hidden: true }, words, prompt, redraw, ...more);
    panel.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!redraw.disabled) send({ regions: player.regions });
    });
    const show = (regions) => {
      redraw.disabled = regions.length === 0;
      const said = regions.map(
        ({ start, end, low, high }) =>
          `${timeText(start)} to ${timeText(end)} s, ${hertzText(low)} to ${hertzText(high)} Hz`,
      );
      words.textContent = said.join("; ") || "Mark with the brush what is to be drawn anew.";
    };
    show([]);
    player.addEventListener("regions", ({ detail }) => {
      if (detail.length) panel.hidden = false;
      show(detail);
    });
    return panel;
  }

  async #star() {
    const path = `/jobs/${this.job.id}/results/${this.result.name}`;
    const job = await attempt(() => post(path, { starred: !this.result.starred }));
    if (job) this.#store.take(job);
  }
}

/** Copy a text, and say so. */
export async function copied(text) {
  await attempt(async () => {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  });
}

/** A link to the page that a command wrote beside its results. */
export function reportLink(job, textContent) {
  return element("a", { href: `/api/artefacts/${job.artefact}/report`, target: "_blank", textContent });
}

/** Whether a job was drawn with a LoRA. */
export function hasLora(job) {
  return (job.settings.lora ?? []).length > 0;
}

function modelName(job) {
  return hasLora(job) ? "LoRA" : "base";
}

/** What was said of how it was drawn; that it was begun again is told while it is, and of pages there is a link. */
function notes(job) {
  return job.notes.filter((note) => !note.startsWith("begun again") && !note.includes(".html"));
}

function facts(job, result) {
  const parts = [
    `seed ${result.seed}`,
    `${timeText(result.seconds, 1)} s`,
    hasLora(job) ? "with LoRA" : job.settings.base,
  ];
  if (result.loop) parts.push("loop");
  return parts.join(" · ");
}
