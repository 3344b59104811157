/** Noise to latents: the samplers of diffusers that sdxl_mel draws with by default, with their noise levels. */

import { roundHalfEven } from "./rounding.js";

const KARRAS_RHO = 7;

/** The noise schedule of a base: sigma of every training timestep (k-diffusion), and what the UNet predicts. */
export class NoiseSchedule {
  /** `scheduler` is that of the manifest: alphas_cumprod, prediction, spacing, steps_offset. */
  constructor(scheduler) {
    this.alphas = scheduler.alphas_cumprod;
    this.finalAlpha = scheduler.final_alpha_cumprod ?? 1;
    this.sigmas = this.alphas.map((alpha) => Math.sqrt((1 - alpha) / alpha));
    this.prediction = scheduler.prediction;
    this.spacing = scheduler.spacing;
    this.offset = scheduler.steps_offset;
  }

  /** `steps` falling timesteps (arXiv 2305.08891, table 2), or those that are given one by one. */
  timesteps(steps, timesteps, { whole = true } = {}) {
    if (Array.isArray(timesteps)) return timesteps;
    const count = this.alphas.length;
    const rounded = (number) => (whole ? roundHalfEven(number) : number);
    const stride = count - count / steps - count; // As numpy.arange counts, to the last bit.
    return Array.from({ length: steps }, (_, step) => {
      switch (timesteps ?? this.spacing) {
        case "trailing":
          return roundHalfEven(count + step * stride) - 1;
        case "linspace":
          return steps === 1 ? 0 : rounded(((steps - 1 - step) * (count - 1)) / (steps - 1));
        default:
          return (steps - 1 - step) * Math.floor(count / steps) + this.offset;
      }
    });
  }

  /** Sigma at a timestep that may lie between two. */
  sigmaAt(timestep) {
    const below = Math.max(0, Math.min(Math.floor(timestep), this.sigmas.length - 2));
    const share = Math.min(timestep - below, 1);
    return this.sigmas[below] + share * (this.sigmas[below + 1] - this.sigmas[below]);
  }

  /** The timestep of a sigma, interpolated in its logarithm. */
  timestepOf(sigma) {
    let below = 0;
    while (below < this.sigmas.length - 2 && this.sigmas[below + 1] <= sigma) below++;
    const [low, high] = [Math.log(this.sigmas[below]), Math.log(this.sigmas[below + 1])];
    return below + Math.min(1, Math.max(0, (Math.log(sigma) - low) / (high - low)));
  }
}

/**
 * The plan of a drawing: `timesteps`, the standard deviation of the `first` noise, and for each step what latents are
 * multiplied by before the UNet sees them (`scaleAt`) and how they go on (`advance`, in place, which returns the clean
 * latents that the prediction says).
 */
const PLANS = { euler: eulerPlan, dpmpp_2m: dpmppPlan, ddim: ddimPlan };

/** The names of the samplers. */
export const SAMPLERS = Object.keys(PLANS);

/** Euler's method on the noise level (Karras et al. 2022, algorithm 2 without churn). */
function eulerPlan(schedule, steps, timesteps) {
  const places = schedule.timesteps(steps, timesteps, { whole: false });
  const sigmas = Float32Array.from([...places.map((place) => schedule.sigmaAt(place)), 0]);
  const spacing = typeof timesteps === "string" ? timesteps : schedule.spacing;
  const most = Math.max(...sigmas);
  return {
    timesteps: places,
    first: spacing === "leading" ? Math.sqrt(most ** 2 + 1) : most,
    scaleAt: (step) => 1 / Math.sqrt(sigmas[step] ** 2 + 1),
    advance(step, latents, prediction) {
      const [sigma, next] = [sigmas[step], sigmas[step + 1]];
      const [ofPrediction, ofLatents] = directionAt(sigma, schedule.prediction);
      const clean = new Float32Array(latents.length);
      for (let i = 0; i < latents.length; i++) {
        const direction = ofPrediction * prediction[i] + ofLatents * latents[i];
        clean[i] = latents[i] - sigma * direction;
        latents[i] += direction * (next - sigma);
      }
      return clean;
    },
  };
}

/** What the direction of the latents takes of a prediction and of the latents, d = a prediction + b latents. */
function directionAt(sigma, prediction) {
  if (prediction === "epsilon") return [1, 0];
  // clean = c latents - s prediction with variance preserving c, s; d = (latents - clean) / sigma.
  return [1 / Math.sqrt(sigma ** 2 + 1), sigma / (sigma ** 2 + 1)];
}

/** DPM-Solver++ 2M (arXiv 2211.01095, algorithm 2) on the noise levels of Karras (arXiv 2206.00364, equation 5). */
function dpmppPlan(schedule, steps, timesteps) {
  if (Array.isArray(timesteps)) throw new Error("dpmpp_2m takes no single timesteps; choose euler");
  const [low, high] = [schedule.sigmas.at(0), schedule.sigmas.at(-1)].map((sigma) => sigma ** (1 / KARRAS_RHO));
  const share = (step) => (steps === 1 ? 0 : step / (steps - 1));
  const karras = Array.from({ length: steps }, (_, step) => (high + share(step) * (low - high)) ** KARRAS_RHO);
  const sigmas = Float32Array.from([...karras, 0]);
  const alphaOf = (sigma) => 1 / Math.sqrt(sigma ** 2 + 1);
  let before = null;
  return {
    timesteps: karras.map((sigma) => roundHalfEven(schedule.timestepOf(sigma))),
    first: 1,
    scaleAt: () => 1,
    advance(step, latents, prediction) {
      const [sigma, next] = [sigmas[step], sigmas[step + 1]];
      const [alpha, nextAlpha] = [alphaOf(sigma), alphaOf(next)];
      const clean = cleanLatents(latents, prediction, alpha, sigma * alpha, schedule.prediction);
      const width = Math.log(sigma / next); // The step in log-SNR / 2; infinite for the last one, which goes to clean.
      const correction = before && next > 0 ? (0.5 * width) / Math.log(sigmas[step - 1] / sigma) : 0;
      const [kept, taken] = [(next * nextAlpha) / (sigma * alpha), -nextAlpha * Math.expm1(-width)];
      for (let i = 0; i < latents.length; i++) {
        const change = correction ? correction * (clean[i] - before[i]) : 0;
        latents[i] = kept * latents[i] + taken * (clean[i] + change);
      }
      before = clean;
      return clean;
    },
  };
}

/** DDIM without noise of its own (arXiv 2010.02502, equation 12 with sigma 0). */
function ddimPlan(schedule, steps, timesteps) {
  if (Array.isArray(timesteps)) throw new Error("ddim takes no single timesteps; choose euler, or trailing steps");
  const places = schedule.timesteps(steps, timesteps);
  const back = Math.floor(schedule.alphas.length / steps);
  return {
    timesteps: places,
    first: 1,
    scaleAt: () => 1,
    advance(step, latents, prediction) {
      const [alpha, next] = [places[step], places[step] - back].map((place) => schedule.alphas[place]);
      const [signal, noise] = [Math.sqrt(alpha), Math.sqrt(1 - alpha)];
      const nextAlpha = next ?? schedule.finalAlpha;
      const [nextSignal, nextNoise] = [Math.sqrt(nextAlpha), Math.sqrt(1 - nextAlpha)];
      const clean = cleanLatents(latents, prediction, signal, noise, schedule.prediction);
      for (let i = 0; i < latents.length; i++) {
        latents[i] = nextSignal * clean[i] + (nextNoise * (latents[i] - signal * clean[i])) / noise;
      }
      return clean;
    },
  };
}

/** The clean latents of a prediction, where latents = signal clean + noise epsilon. */
function cleanLatents(latents, prediction, signal, noise, kind) {
  if (kind === "epsilon") return latents.map((latent, i) => (latent - noise * prediction[i]) / signal);
  return latents.map((latent, i) => signal * latent - noise * prediction[i]);
}

/**
 * Walk from `noise` to clean latents. `predict` (scaled noisy latents, timestep, step) resolves to what the model
 * predicts, in the shape of the latents; `onStep` is given (step, clean latents as they are predicted there) after
 * every step, and may throw to stop.
 */
export async function sample(schedule, { sampler, steps, timesteps }, noise, predict, onStep = () => {}) {
  if (!PLANS[sampler]) throw new Error(`unknown sampler ${sampler}; known: ${SAMPLERS.join(", ")}`);
  const plan = PLANS[sampler](schedule, steps, timesteps);
  const latents = noise.map((number) => number * plan.first);
  for (const [step, timestep] of plan.timesteps.entries()) {
    const scale = plan.scaleAt(step);
    const scaled = scale === 1 ? latents : latents.map((latent) => latent * scale);
    onStep(step, plan.advance(step, latents, await predict(scaled, timestep, step)));
  }
  return latents;
}
