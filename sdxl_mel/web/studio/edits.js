/** Jobs that change a result: by the command `edit` where the server offers it, else by inpainting a tile. */

import { ask, post } from "./api.js";

let known = null;

/** Ask for a result with a change: {prompt} with {regions: [{start, end, low, high}]}, {extend} or {loop}. */
export async function editResult(store, job, result, change) {
  const parent = { job: job.id, result: result.name, how: "edit" };
  const stage = store.offers("edit") ? "edit" : "generate";
  const settings = stage === "edit" ? await edited(job, result, change) : inpainted(job, result, change);
  return store.take(await post("/jobs", { stage, settings, parent }));
}

/** A region as the command line takes it: "1.50-3.00s 200-2000Hz". */
export function regionText({ start, end, low, high }) {
  return `${start.toFixed(2)}-${end.toFixed(2)}s ${Math.round(low)}-${Math.round(high)}Hz`;
}

async function edited(job, result, { prompt, regions, extend, loop }) {
  known ??= Object.keys((await ask("/stages/edit")).schema.properties);
  const kept = Object.fromEntries(Object.entries(job.settings).filter(([name]) => known.includes(name)));
  const settings = { ...kept, input: `id:${result.artefact.sound ?? result.artefact.picture}`, seed: result.seed + 1 };
  for (const name of ["seconds", "loop", "region", "extend", "prepend", "strength"]) delete settings[name];
  settings.prompt = prompt || job.settings.prompt || result.prompt;
  if (regions) settings.region = regions.map(regionText);
  if (extend) settings.extend = extend;
  if (loop) settings.loop = true;
  return settings;
}

function inpainted(job, result, { prompt, regions }) {
  const start = Math.min(...regions.map((each) => each.start));
  const end = Math.max(...regions.map((each) => each.end));
  const settings = { ...job.settings, prompt: prompt || job.settings.prompt || result.prompt };
  for (const name of ["seconds", "schedule", "loop", "num", "mode"]) delete settings[name];
  return { ...settings, init: `id:${result.artefact.picture}`, inpaint: `${start.toFixed(2)}-${end.toFixed(2)}` };
}
