/** A job that waits or runs, as a card: its picture while it is drawn, its progress, and how to stop it. */

import { chosenColours, pixels } from "../colours.js";
import { element } from "../elements.js";
import { bytesOf } from "../picture.js";
import { post } from "./api.js";
import { button, duration, progressBar } from "./controls.js";
import { ListenButton } from "./listen.js";
import { attempt } from "./notices.js";

const WORDS = {
  waiting: "waits for its turn",
  running: "is being drawn",
  stopping: "is stopping",
  failed: "failed",
  cancelled: "was cancelled",
  interrupted: "was interrupted",
  finished: "is finished",
};

/** The card of a job without its results. */
export class RunningCard {
  #store;
  #parts;
  #listen = new ListenButton();
  #result = null;
  #reading = Promise.resolve();
  #acts = "";

  constructor(job, store) {
    this.#store = store;
    const parts = {
      title: element("h3", { textContent: titleOf(job) }),
      preview: element("div", { className: "preview" }),
      state: element("div", { className: "state" }),
      notes: element("div", { className: "notes" }),
      actions: element("div", { className: "actions" }),
    };
    this.#parts = parts;
    this.node = element(
      "article",
      { className: "card running", "aria-label": `Job ${job.id}` },
      element("header", {}, parts.title, this.#listen.node, parts.actions),
      parts.preview,
      parts.state,
      parts.notes,
    );
    this.update(job);
  }

  /** Show a job as it is now. */
  update(job) {
    const { state, preview } = this.#parts;
    const ended = ["failed", "cancelled", "interrupted"].includes(job.state);
    this.node.dataset.state = job.state;
    const words = job.error ?? `${stateText(job)}${job.results.length ? `; ${job.results.length} finished` : ""}`;
    if (job.state !== "running" || !state.querySelector("progress"))
      state.replaceChildren(element("p", { className: job.error ? "error" : "meta", textContent: words }));
    // What is heard of a result that is finished is heard in its own card.
    if (job.results.some(({ name }) => name === this.#result)) this.#listen.node.hidden = true;
    this.#parts.notes.replaceChildren(
      ...job.notes.map((textContent) => element("p", { className: "note", textContent })),
    );
    if (ended) preview.replaceChildren();
    this.#offer(job, ended);
  }

  /** Offer what can be done with a job; buttons stay while they do, for one that goes under a pointer takes no click. */
  #offer(job, ended) {
    const { actions } = this.#parts;
    const acts = ended ? "ended" : job.state === "stopping" ? "stopping" : "running";
    if (acts === this.#acts) return;
    this.#acts = acts;
    const focused = actions.contains(document.activeElement);
    const act = (path) => (event, made) =>
      attempt(async () => this.#store.take(await post(`/jobs/${job.id}/${path}`)), made);
    const remove = (event, made) => attempt(() => post(`/jobs/${job.id}/remove`), made);
    actions.replaceChildren(
      ...(ended
        ? [
            button("Go on", act("again"), { name: "again", kind: "quiet" }),
            button("Remove", remove, { name: "close", kind: "quiet" }),
          ]
        : [
            button(acts === "stopping" ? "Stopping" : "Cancel", act("cancel"), {
              name: "stop",
              kind: "quiet",
              disabled: acts === "stopping",
            }),
          ]),
    );
    if (focused) actions.querySelector("button:not(:disabled)")?.focus();
  }

  /** Take a block of the sound, {result, sound}: what there is can be heard while the rest is made. */
  block({ result, sound }) {
    this.#reading = this.#reading.then(async () => {
      const bytes = await bytesOf(sound);
      if (result !== this.#result) this.#listen.restart();
      this.#result = result;
      this.#listen.append(bytes);
    });
    attempt(() => this.#reading);
  }

  /** What is heard of a result that is being made, {result, stream}, or null. */
  get heard() {
    return this.#listen.heard && { result: this.#result, stream: this.#listen.heard };
  }

  /** Show a step: {number, total, rate, remaining_seconds, previews}. */
  step({ number, total, rate, remaining_seconds: left, previews }) {
    const { state, preview } = this.#parts;
    const words = [
      `step ${number} of ${total}`,
      rate ? `${rate.toPrecision(2)} a second` : "",
      left ? `${duration(left)} left` : "",
    ];
    state.replaceChildren(progressBar(number / total, words.filter(Boolean).join(" · ")));
    if (!previews?.length) return;
    const canvas = () => element("canvas", { role: "img", "aria-label": "The picture so far" });
    while (preview.childElementCount < previews.length) preview.append(canvas());
    [...preview.children].slice(previews.length).forEach((each) => each.remove());
    previews.forEach((source, index) => paint(preview.children[index], source));
  }
}

/** Draw a preview, a small PNG, in the colours that pictures have; the middle of three channels is the mid. */
async function paint(canvas, source) {
  const bitmap = await createImageBitmap(new Blob([await bytesOf(source)], { type: "image/png" }));
  Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const [levels, table] = [image.data, pixels(chosenColours())];
  const painted = Uint32Array.from({ length: levels.length / 4 }, (_, k) => table[levels[4 * k + 1]]);
  context.putImageData(new ImageData(new Uint8ClampedArray(painted.buffer), canvas.width), 0, 0);
}

function titleOf({ stage, settings, name }) {
  if (stage === "vary") return `Variations of “${settings.prompt}”`;
  return settings.prompt || settings.schedule || name;
}

function stateText(job) {
  return `${WORDS[job.state] ?? job.state}${job.progress?.note ? `: ${job.progress.note}` : ""}`;
}
