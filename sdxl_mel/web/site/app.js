/** The page: opens the model, has a form of what to make, and shows what was made. */

import { element, remember, remembered } from "../elements.js";
import { button, progressBar } from "../studio/controls.js";
import { attempt, copied, say } from "../studio/notices.js";
import { embedded } from "./embedded.js";
import { History } from "./history.js";
import { SiteFiles } from "./loading.js";
import { Model } from "./model.js";
import { canBeKept, keepPage } from "./offline.js";
import { SettingsForm, linkTo } from "./settings_form.js";
import { Sounds } from "./sounds.js";
import { lacking } from "./support.js";

const MANIFEST = "manifest.json";
const THREADS = "site-threads";
const CORES_WITHOUT_THREADS = 2;
const MEGABYTE = 1e6;

const main = document.querySelector("#main");
const state = document.querySelector("#worker");

/** What the page is made of: the files beside it, or those in it. */
async function source() {
  const manifestUrl = new URL(MANIFEST, document.baseURI).href;
  const own = await embedded();
  if (own) return { ...own, manifestUrl };
  const worker = new URL(document.body.dataset.worker, document.baseURI).href;
  return { manifest: new SiteFiles(manifestUrl).manifest(), manifestUrl, worker };
}

function ready(kept) {
  return kept ? "ready, also offline" : "ready";
}

function showState(name, words) {
  state.dataset.state = name;
  state.textContent = words;
}

/** Say in `place` how far the model is, and offer to try again where it failed. */
function showLoading(model, place, kept) {
  let bar = null;
  model.addEventListener("progress", ({ detail: { loaded, total } }) => {
    const words = `Loads the model: ${Math.round(loaded / MEGABYTE)} of ${Math.round(total / MEGABYTE)} MB`;
    if (!bar) {
      place.replaceChildren((bar = progressBar(0, words)));
      showState("starting", "loads the model");
    }
    const [shown, text] = bar.children;
    if (text.textContent !== words) [shown.value, text.textContent] = [loaded / Math.max(total, 1), words];
  });
  model.addEventListener("ready", () => {
    bar = null;
    place.replaceChildren();
    showState("ready", ready(kept));
  });
  model.addEventListener("failed", ({ detail }) => {
    bar = null;
    const again = button("Try again", () => attempt(() => model.engine).catch(() => null), {
      name: "again",
      kind: "quiet",
    });
    place.replaceChildren(element("p", { className: "error", textContent: detail.message }), again);
    showState("failed", "the model is not there");
  });
}

/** A choice of using all cores, where there are more than the two workers use and the page can be isolated. */
function threadsChoice() {
  if (!canBeKept() || navigator.hardwareConcurrency <= CORES_WITHOUT_THREADS) return null;
  const box = element("input", { type: "checkbox", checked: remembered(THREADS, "") === "true", id: "threads" });
  box.addEventListener("change", async () => {
    remember(THREADS, String(box.checked));
    await keepPage(box.checked);
    location.reload();
  });
  const words = `Use all ${navigator.hardwareConcurrency} cores (loads the page again)`;
  return element("p", { className: "meta" }, box, element("label", { htmlFor: "threads", textContent: words }));
}

function facts({ spec, made_with: program, weights }) {
  const seconds = (spec.width * spec.hop_length) / spec.sample_rate;
  const sound = `${seconds.toFixed(1)} s a tile, ${spec.sample_rate / 1000} kHz ${spec.channels === "grey" ? "mono" : "stereo"}`;
  return `${sound} · weights in ${weights} · made with ${program} · all of it runs on this device, and nothing is sent`;
}

async function start() {
  const problem = lacking();
  if (problem) throw new Error(problem);
  const kept = document.body.dataset.worker ? await keepPage(remembered(THREADS, "") === "true") : false;
  const files = await source();
  const model = new Model(files);
  const device = element("p", { className: "meta", role: "status" });
  model.addEventListener("device", ({ detail }) => (device.textContent = `Computes with ${detail}.`));
  model.engine.catch(() => null); // Said in the form.
  const manifest = await files.manifest;
  // Sites in other folders of the same host share the browser's storage with this one.
  const place = files.read ? location.pathname : new URL(".", document.baseURI).pathname;
  const form = new SettingsForm(manifest, place, {
    make: () => {
      if (!form.valid) return;
      sounds.make(form.values);
      form.nextSeed();
    },
    copy: async (settings) => copied((await model.engine).command(settings)),
    link: (settings) => copied(linkTo(settings)),
    lora: (file) => attempt(() => sounds.inTurn(() => model.exchangeLora(file).then(() => true))),
  });
  showLoading(model, form.loading, kept);
  const history = await History.open(`sdxl-mel ${place}`);
  if (history.problem) say(history.problem);
  const sounds = new Sounds({
    history,
    model,
    manifest,
    reuse: (settings) => (form.values = settings),
    busy: (drawing) => {
      if (!["ready", "busy"].includes(state.dataset.state)) return;
      showState(drawing ? "busy" : "ready", drawing ? "drawing" : ready(kept));
    },
  });
  main.replaceChildren(element("div", { className: "split" }, form.node, sounds.node));
  document
    .querySelector("footer#facts")
    .append(element("p", { className: "meta", textContent: facts(manifest) }), device, threadsChoice() ?? "");
  await attempt(() => sounds.open());
  document.body.dataset.ready = "";
}

try {
  await start();
} catch (error) {
  main.replaceChildren(element("p", { className: "error", role: "alert", textContent: error.message }));
  showState("failed", "");
}
