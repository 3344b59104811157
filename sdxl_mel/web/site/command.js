/** The command line that draws what the page drew. */

const PLAIN = /^[\w./:@%+=,#-]+$/;

/** The command for settings {prompt, seed, steps, guidance, sampler, seconds, loop, ...} on a manifest's models. */
export function commandOf(settings, { command, lora, files }, timesteps) {
  const { prompt, seed, steps, guidance, sampler, seconds, loop, loraScale, method, quick } = settings;
  const words = ["sdxl-mel", "generate", "--base", command.base];
  if (command.vae) {
    words.push("--vae", command.vae);
  }
  for (const file of settings.lora ? [settings.lora] : command.loras) {
    words.push("--lora", lora ? scaledLora(file, loraScale ?? 1) : file);
  }
  if (quick) words.push("--lora", files.steps.lora);
  words.push("--prompt", prompt, "--seed", seed, "--sampler", sampler, "--steps", steps, "--guidance", guidance);
  if (timesteps) words.push("--timesteps", Array.isArray(timesteps) ? timesteps.join(",") : timesteps);
  if (seconds !== null && seconds !== undefined) words.push("--seconds", seconds);
  if (loop) words.push("--loop");
  words.push("--method", method ?? "fast", "--out", "sounds");
  return words.map((word) => quoted(String(word))).join(" ");
}

/** `FILE:SCALE#layers` with another scale. */
function scaledLora(file, factor) {
  const [, path, scale = "1", layers = ""] = /^(.*?)(?::([\d.]+))?(#\w+)?$/.exec(file);
  const product = Number((scale * factor).toPrecision(6));
  return `${path}${product === 1 ? "" : `:${product}`}${layers}`;
}

/** A word as a POSIX shell reads it. */
function quoted(word) {
  return PLAIN.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
