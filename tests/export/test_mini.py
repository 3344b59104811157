"""mini's own page: what it weighs, and that it draws what Python draws. Slow: each export takes a minute."""

from pathlib import Path

import numpy as np
import pytest

from sdxl_mel.cli import main
from sdxl_mel.diffusion.samplers import Sampling
from sdxl_mel.export.manifest import Drawn, read_manifest
from sdxl_mel.export.runner import Exported
from sdxl_mel.files.prompts import PromptLine
from sdxl_mel.models.vae import decode, unscale_latents, values_of_images
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Prompts, plan_jobs
from sdxl_mel.synthesis.layout import lay_out
from sdxl_mel.synthesis.settings import Length

pytestmark = pytest.mark.slow
PROMPTS = (
    "violin ballad with soft piano, slow",
    "solo trumpet, fast, folk reel",
    "church organ and flute",
    "clarinet and cello, calm chorale",
    "banjo and fiddle, lively folk jig",
    "harp, slow waltz",
    "electric guitar",
    "string quartet, minor key, moderate tempo",
)
MOST_MB = {"int8": 25.0, "fp16": 45.0}
"""What is loaded when the page is opened, the runtime apart; the small decoder comes when it is wanted."""
MOST_DIFFERENCE = {"int8": 0.004, "fp16": 1e-5}
"""Root mean square of 0..1, against float32 in Python."""


def generators_values(generator: Generator, prompt: str, drawing: Drawn, seed: int) -> np.ndarray:
    """What the VAE makes of the Generator's latents, before it is rounded to levels."""
    jobs = plan_jobs(Prompts([PromptLine(prompt=prompt)], 1, seed), generator.fitting(), 4.0, False)
    sampling = Sampling(drawing.sampler, drawing.steps, drawing.guidance, drawing.timesteps)
    drawer = generator.drawer(jobs, sampling, lay_out(Length(), generator.spec))
    latents = drawer.latents(jobs, [seed])
    vae = generator.models.base.vae
    return values_of_images(decode(vae, unscale_latents(latents, vae.config.scaling_factor)), 1, "top")[0]


@pytest.mark.parametrize("weights", ["int8", "fp16"])
def test_minis_page_draws_what_python_draws(weights: str, tmp_path: Path) -> None:
    out = tmp_path / "site"
    assert main(["export", "--base", "mini", "--weights", weights, "--out", str(out)]) == 0
    manifest = read_manifest(out)
    files = manifest.files
    models = [file for model in (files.text, files.unet, files.decoder) for file in model.all_files()]
    loaded = [*models, files.tokenizer, files.tokenizer_2]
    page = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
    assert (page + sum(file.loaded for file in loaded)) / 1e6 <= MOST_MB[weights]
    exported, generator = Exported.open(out), Generator.open("mini", device="cpu")
    differences, changed = [], []
    for seed, prompt in enumerate(PROMPTS):
        wanted = generators_values(generator, prompt, manifest.drawing, seed)
        found = exported.values(prompt, seed)
        differences.append(float(np.sqrt(np.mean((found - wanted) ** 2))))
        changed.append(float(np.mean(np.rint(255 * found) != np.rint(255 * wanted))))
    print(weights, [f"{each:.2e}" for each in differences], [f"{each:.2e}" for each in changed])
    assert max(differences) <= MOST_DIFFERENCE[weights], differences
    if weights == "fp16":
        assert max(changed) <= 1e-3, changed
