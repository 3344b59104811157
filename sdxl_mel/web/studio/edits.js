/** What commands share, and jobs of the command `edit`, which change a sound that is there. */

import { ask, post } from "./api.js";

const OF_AN_EDIT = ["input", "region", "extend", "prepend", "loop", "strength"];

const schemas = new Map();

/** The JSON schema of a command's settings. */
export async function schemaOf(stage) {
  if (!schemas.has(stage)) schemas.set(stage, await ask(`/stages/${stage}`));
  return schemas.get(stage).schema;
}

/** The settings among `settings` that another command has, too, without those that say what is edited and how. */
export async function sharedSettings(stage, settings) {
  const { properties } = await schemaOf(stage);
  const shared = ([name]) => name in properties && !OF_AN_EDIT.includes(name);
  return Object.fromEntries(Object.entries(settings).filter(shared));
}

/** Ask for a result with a change: {prompt} with {regions: [{start, end, low, high}]}, {extend} or {loop}. */
export async function editResult(store, job, result, { prompt, regions, extend, loop }) {
  const settings = { ...(await sharedSettings("edit", job.settings)), input: `id:${result.artefact.sound}`, seed: result.seed + 1 };
  settings.prompt = prompt || job.settings.prompt || result.prompt;
  if (regions) settings.region = regions.map(regionText);
  if (extend) settings.extend = extend;
  if (loop) settings.loop = true;
  const parent = { job: job.id, result: result.name, how: "edit" };
  return store.take(await post("/jobs", { stage: "edit", settings, parent }));
}

/** A region as the command line takes it: "1.50-3.00s 200-2000Hz". */
export function regionText({ start, end, low, high }) {
  return `${start.toFixed(2)}-${end.toFixed(2)}s ${Math.round(low)}-${Math.round(high)}Hz`;
}
