/** Classifier-free guidance by workers: of two each predicts one half, what the noise is with the prompt or without. */

const NO_GUIDANCE = [0, 1];
const TIME_IDS = 6;

/**
 * What predicts latents (channels, height, columns) at a timestep, guided by `scale`. `text` has the embeddings of an
 * empty prompt and of the prompt, {hidden, pooled, tokens}, two rows each; `spec` and `latent` are the manifest's.
 */
export async function guidedPredictor(crew, text, scale, { spec, latent }) {
  const ask = (crewman, latents, timestep) => {
    const dims = [latent.channels, latent.height, latents.length / latent.channels / latent.height];
    return crewman.do("predict", { latents, dims, timestep });
  };
  if (NO_GUIDANCE.includes(scale)) {
    await Promise.all(crew.map((each) => tell(each, text, spec, 1, 1)));
    let next = 0; // By turns: views of a long piece are asked for together.
    return (latents, timestep) => ask(crew[next++ % crew.length], latents, timestep);
  }
  if (crew.length === 1) {
    await tell(crew[0], text, spec, 0, 2);
    return async (latents, timestep) => {
      const both = await ask(crew[0], latents, timestep);
      return guided(both.subarray(0, latents.length), both.subarray(latents.length), scale);
    };
  }
  await Promise.all([0, 1].map((row) => tell(crew[row], text, spec, row, 1)));
  return async (latents, timestep) => {
    const [without, prompted] = await Promise.all([0, 1].map((row) => ask(crew[row], latents, timestep)));
    return guided(without, prompted, scale);
  };
}

/** Tell a worker `count` rows of the embeddings, and the sizes of a tile beside each. */
function tell(crewman, { hidden, pooled, tokens }, { n_mels: height, width }, row, count) {
  const rows = (data) => data.slice((row * data.length) / 2, ((row + count) * data.length) / 2);
  const tile = [height, width, 0, 0, height, width];
  const sizes = Float32Array.from({ length: TIME_IDS * count }, (_, at) => tile[at % TIME_IDS]);
  return crewman.do("condition", { hidden: rows(hidden), pooled: rows(pooled), sizes, tokens, count });
}

/** arXiv 2207.12598, equation 6. */
function guided(without, prompted, scale) {
  return without.map((each, at) => each + scale * (prompted[at] - each));
}
