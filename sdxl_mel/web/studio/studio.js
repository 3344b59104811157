/** The studio's page: its tabs, the state of the server, and which tab is in sight. */

import { element } from "../elements.js";
import { Data } from "./data.js";
import { Make } from "./make.js";
import { attempt, say } from "./notices.js";
import { Scores } from "./scores.js";
import { Store } from "./store.js";
import { Timeline } from "./timeline.js";
import { Train } from "./train.js";

const TABS = {
  make: ["Make", Make],
  timeline: ["Timeline", Timeline],
  data: ["Data", Data],
  train: ["Train", Train],
  scores: ["Scores", Scores],
};
const WORKER = {
  resting: "ready when you are",
  starting: "loads the model",
  ready: "ready",
  busy: "drawing",
};

const store = new Store();
const main = document.querySelector("#main");
const links = new Map();
const opened = new Map();
let saidOfWorker = null;

for (const [name, [text]] of Object.entries(TABS)) {
  const link = element("a", { href: `#${name}`, textContent: text });
  links.set(name, link);
  document.querySelector("nav").append(link);
}

async function show() {
  const name = TABS[location.hash.slice(1)] ? location.hash.slice(1) : "make";
  for (const [each, link] of links) {
    if (each === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TABS[name][0]} · sdxl-mel studio`;
  if (!opened.has(name)) {
    const tab = new TABS[name][1](store);
    opened.set(name, tab);
    main.append(tab.node);
    await attempt(() => tab.open());
  }
  for (const [each, tab] of opened) tab.node.hidden = each !== name;
  if (name !== "make" || opened.size > 1)
    for (const player of main.querySelectorAll("[hidden] mel-player")) player.pause();
}

function showWorker() {
  const { state, base, reason } = store.worker;
  const shown = document.querySelector("#worker");
  shown.dataset.state = state;
  shown.textContent = [WORKER[state] ?? state, base].filter(Boolean).join(" · ");
  shown.title = reason ?? "";
  if (reason && reason !== saidOfWorker) say(reason, "error");
  saidOfWorker = reason;
}

store.addEventListener("worker", showWorker);
store.addEventListener("problem", ({ detail }) => say(detail.error, "error"));
store.addEventListener("connection", ({ detail: connected }) => {
  document.body.toggleAttribute("data-offline", !connected);
  if (!connected) document.querySelector("#worker").textContent = "no connection; trying again";
  else showWorker();
});
addEventListener("hashchange", show);

await attempt(() => store.start());
saidOfWorker = store.worker.reason;
showWorker();
await show();
document.body.dataset.ready = "";
