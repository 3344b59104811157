/** What all tabs know: the jobs, the worker, the artefacts; kept true by the server's events. */

import { ask, query } from "./api.js";

const PAGE = 50;
const NAMES = [
  "hello",
  "reset",
  "job",
  "removed",
  "step",
  "block",
  "progress",
  "message",
  "metrics",
  "worker",
  "artefacts",
  "override",
  "problem",
];

/** Events of the server (`job`, `step`, `metrics`, ...), with their data as `detail`, and `connection` (a boolean). */
export class Store extends EventTarget {
  jobs = new Map();
  worker = { state: "resting" };
  more = false;
  wantedLora = null;
  #artefacts = null;
  #source = null;
  #last = undefined;
  #told = new Set();
  #removed = new Set();

  /** Read what there is, and follow what happens. */
  async start() {
    const overview = await ask("");
    [this.worker, this.limits] = [overview.worker, overview.limits];
    // What happens between an answer and the first event would never be heard of: the stream comes first.
    await new Promise((open) => {
      this.#follow();
      this.#source.addEventListener("hello", open);
      this.#source.addEventListener("error", open);
    });
    await this.readJobs();
    // A browser has few connections for all its tabs: a tab that is out of sight gives its stream up until it is seen.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#source.close() : this.#follow()));
  }

  /** Read the newest jobs, or those older than what is known. */
  async readJobs(older = false) {
    const before = older ? [...this.jobs.keys()].sort()[0] : undefined;
    const told = (this.#told = new Set());
    const { jobs, more } = await ask(query("/jobs", { before, limit: PAGE }));
    if (!older) for (const id of [...this.jobs.keys()].filter((id) => !told.has(id))) this.jobs.delete(id);
    for (const job of jobs) this.#know(job);
    this.more = more;
    this.#tell("jobs");
  }

  /** Take over a job as the server answered it. */
  take(job) {
    this.#happened("job", job);
    return job;
  }

  /** Jobs of some stages, the newest first. */
  newest(...stages) {
    return [...this.jobs.values()]
      .filter((job) => stages.includes(job.stage))
      .sort((one, other) => (one.id < other.id ? 1 : -1));
  }

  /** The artefacts of some kinds, the newest first. */
  async artefacts(...kinds) {
    this.#artefacts ??= ask("/artefacts").then(({ artefacts }) => artefacts);
    return (await this.#artefacts).filter((each) => kinds.includes(each.kind));
  }

  /** Let the tab Make use a LoRA, and show it. */
  useLora(id) {
    this.wantedLora = id;
    location.hash = "#make";
    this.#tell("lora", id);
  }

  /** Whether a job draws a long piece by a schedule, or edits what such a job drew. */
  isPiece(job) {
    const edited = job.parent?.how === "edit" ? this.jobs.get(job.parent.job) : undefined;
    return Boolean(job.settings.schedule) || (edited !== undefined && this.isPiece(edited));
  }

  /** Open the stream of events, from the last one that was heard on. */
  #follow() {
    this.#source?.close();
    this.#source = new EventSource(query("/api/events", { last: this.#last }));
    for (const name of NAMES) {
      this.#source.addEventListener(name, (event) => {
        this.#last = event.lastEventId || this.#last;
        this.#happened(name, JSON.parse(event.data || "{}"));
      });
    }
    this.#source.addEventListener("open", () => this.#tell("connection", true));
    this.#source.addEventListener("error", () => this.#tell("connection", false));
  }

  #happened(name, detail) {
    if (name === "job") detail = this.#know(detail);
    if (name === "removed") this.#forget(detail.job);
    if (name === "hello") this.worker = detail.worker;
    if (name === "worker") this.worker = detail;
    if (name === "artefacts" || (name === "job" && detail.state === "finished")) this.#artefacts = null;
    if (name === "reset") this.readJobs();
    this.#tell(name === "hello" ? "worker" : name, detail);
  }

  /** Take over a job and return it, or what is known where that is newer: answers and events overtake each other. */
  #know(job) {
    const known = this.jobs.get(job.id);
    if (this.#removed.has(job.id) || known?.changes > job.changes) return known ?? job;
    this.#told.add(job.id);
    this.jobs.set(job.id, job);
    return job;
  }

  #forget(id) {
    this.#removed.add(id);
    this.jobs.delete(id);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
