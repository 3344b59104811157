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

  /** Read what there is, and follow what happens. */
  async start() {
    const overview = await ask("");
    [this.worker, this.limits] = [overview.worker, overview.limits];
    this.#follow();
    await this.readJobs();
    // A browser has few connections for all its tabs: a tab that is out of sight gives its stream up until it is seen.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#source.close() : this.#follow()));
  }

  /** Read the newest jobs, or those older than what is known. */
  async readJobs(older = false) {
    const before = older ? [...this.jobs.keys()].sort()[0] : undefined;
    const { jobs, more } = await ask(query("/jobs", { before, limit: PAGE }));
    if (!older) this.jobs.clear();
    for (const job of jobs) this.jobs.set(job.id, job);
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
    if (name === "job") this.jobs.set(detail.id, detail);
    if (name === "removed") this.jobs.delete(detail.job);
    if (name === "hello") this.worker = detail.worker;
    if (name === "worker") this.worker = detail;
    if (name === "artefacts" || (name === "job" && detail.state === "finished")) this.#artefacts = null;
    if (name === "reset") this.readJobs();
    this.#tell(name === "hello" ? "worker" : name, detail);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
