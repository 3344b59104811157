"""The exported models draw what the Generator draws, read by the manifest alone."""

import json
import shutil
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sdxl_mel.diffusion.samplers import Sampling
from sdxl_mel.diffusion.sampling import draw_noise
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.export.folder import read_file
from sdxl_mel.export.manifest import Drawn, read_manifest
from sdxl_mel.export.options import SAMPLERS
from sdxl_mel.export.runner import LORA_FILE, WEIGHTS_FILE, ConditionedUnet, Exported, Models, Session
from sdxl_mel.files.prompts import PromptLine
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Prompts, plan_jobs
from tests.docs.commands import ROOT, blocks_of
from tests.exported import PART_BYTES, Site

PROMPT = "mel spectrogram, violin ballad, slow"


def drawn(generator: Generator, drawing: Drawn, seed: int) -> np.ndarray:
    sampling = Sampling(drawing.sampler, drawing.steps, drawing.guidance, drawing.timesteps)
    jobs = plan_jobs(Prompts([PromptLine(prompt=PROMPT)], 1, seed), generator.fitting(), 4.0, False)
    return next(generator.draw(jobs, sampling)).levels


@pytest.fixture(scope="module")
def exported(slim_site: Site) -> Exported:
    return slim_site.opened()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_tile_is_the_generators(slim_site: Site, exported: Exported, sampler: str) -> None:
    generator = Generator.open(str(slim_site.base), loras=[f"{slim_site.lora}:0.5"], device="cpu")
    drawing = Drawn(sampler=sampler, steps=3, guidance=2.5)
    found, wanted = exported.draw(PROMPT, 5, drawing), drawn(generator, drawing, 5)
    assert found.shape == wanted.shape
    assert np.mean(found != wanted) <= 1e-3


def test_given_timesteps_without_guidance_are_walked_as_the_generator_walks_them(
    slim_site: Site, exported: Exported
) -> None:
    generator = Generator.open(str(slim_site.base), loras=[f"{slim_site.lora}:0.5"], device="cpu")
    drawing = Drawn(sampler="ddim", steps=3, guidance=1.0, timesteps="trailing")
    assert np.mean(exported.draw(PROMPT, 1, drawing) != drawn(generator, drawing, 1)) <= 1e-3


def test_factors_can_be_scaled_and_taken_away(slim_site: Site, exported: Exported) -> None:
    """With `up` times s the UNet is that of the LoRA at scale s; with zeros it is the base's."""
    manifest = read_manifest(slim_site.folder)
    assert manifest.lora is not None
    unet = manifest.files.unet
    assert unet.weights is not None
    assert unet.conditions is not None
    files = (manifest.lora.file, unet, unet.weights, unet.conditions)
    stored, graph, weights, conditions = (read_file(slim_site.folder, file) for file in files)
    assert manifest.lora.rank == 2
    latents = draw_noise([2], (4, 16, 32), "cpu").numpy()
    hidden, pooled = exported.models.text(dict(zip(("ids", "ids_2"), exported.tokens([PROMPT]))))
    inputs = {
        "latents": latents,
        "timestep": np.float32([400]),
        "hidden": hidden,
        "pooled": pooled,
        "sizes": np.float32([[128, 256, 0, 0, 128, 256]]),
    }
    generator = Generator.open(str(slim_site.base), loras=[f"{slim_site.lora}:0.5"], device="cpu")
    for scale in (0.0, 0.25, 1.0):
        factors = np.frombuffer(stored, np.float32).copy()
        for each in manifest.lora.factors:
            offset, shape = each.up
            factors[offset // 4 :][: np.prod(shape)] *= scale / 0.5
        generator.rescale(scale)
        with torch.inference_mode():
            added = {"text_embeds": torch.from_numpy(pooled), "time_ids": torch.from_numpy(inputs["sizes"])}
            wanted = generator.models.base.unet(
                torch.from_numpy(latents), 400, torch.from_numpy(hidden), added_cond_kwargs=added
            ).sample.numpy()
        beside = {LORA_FILE: factors.tobytes()}
        (found,) = ConditionedUnet(Session(conditions, beside), Session(graph, beside | {WEIGHTS_FILE: weights}))(
            inputs
        )
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_graphs_take_any_batch_and_width(exported: Exported) -> None:
    for batch, columns in ((1, 8), (3, 44)):
        latents = draw_noise(range(batch), (4, 16, columns), "cpu").numpy()
        (values,) = exported.models.decoder({"latents": latents})
        assert values.shape == (batch, 1, 128, columns * 8)
        assert 0 <= values.min() <= values.max() <= 1


def test_large_files_lie_in_parts(slim_site: Site) -> None:
    manifest = slim_site.written.manifest
    for file in manifest.all_files():
        sizes = [(slim_site.folder / part).stat().st_size for part in file.parts]
        assert max(sizes) <= PART_BYTES
        assert sum(sizes) == file.loaded
        assert len(sizes) == -(-file.bytes // PART_BYTES)
    assert manifest.files.unet.weights is not None
    assert len(manifest.files.unet.weights.parts) > 5


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "is damaged"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_a_spoilt_part_is_named(slim_site: Site, tmp_path: Path, spoil, said: str) -> None:
    folder = shutil.copytree(slim_site.folder, tmp_path / "site")
    weights = read_manifest(folder).files.unet.weights
    assert weights is not None
    part = weights.parts[2]
    spoil(folder / part)
    with pytest.raises(FormatError, match=said) as error:
        Exported.open(folder)
    assert Path(part).name in str(error.value)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sdxl-mel export"):
        Exported.open(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(FormatError, match="not a manifest"):
        Exported.open(tmp_path)


def test_vectors_are_what_the_models_give(slim_site: Site, exported: Exported) -> None:
    manifest = slim_site.written.manifest
    table = json.loads(read_file(slim_site.folder, manifest.vectors))
    noise = table["noise"][-1]
    wanted = draw_noise([noise["seed"]], noise["shape"], "cpu")[0].numpy()
    assert np.array_equal(np.frombuffer(b64decode(noise["values"]), "<f4").reshape(wanted.shape), wanted)
    picture = table["picture"]
    levels = np.frombuffer(b64decode(picture["levels"]), np.uint8).reshape(picture["shape"])
    again = exported.draw(picture["text"], picture["seed"], Drawn(**picture["drawing"]))
    assert np.array_equal(levels[::-1], again)
    assert {each["sampler"] for each in table["sampling"]} == set(SAMPLERS)


def test_the_python_of_the_page(slim_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(slim_site.folder)
    monkeypatch.chdir(tmp_path)
    (text,) = (text for _, language, text in blocks_of(ROOT / "docs" / "browser.md") if language == "python")
    names: dict[str, np.ndarray] = {}
    exec(text, names)
    assert names["levels"].shape == (128, 256, 1)


def test_models_may_be_anything_that_is_called_with_arrays(exported: Exported) -> None:
    """A UNet that predicts nothing leaves the noise as the sampler brings it down."""
    models = Models(exported.models.text, lambda inputs: [np.zeros_like(inputs["latents"])], exported.models.decoder)
    still = replace(exported, models=models)
    latents = still.latents(PROMPT, 0, Drawn(sampler="ddim", steps=2, guidance=1.0))
    start = draw_noise([0], (4, 16, 32), "cpu")
    ratio = latents / start
    assert float(ratio.std()) <= 1e-4 * float(ratio.mean())
