"""LoRAs that act at some noise levels and in some layers alone, and results with and without them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sdxl_mel.config import validated
from sdxl_mel.diffusion.samplers import Sampling
from sdxl_mel.errors import InputError
from sdxl_mel.files.prompts import PromptLine
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.models.base import open_base
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages import generate
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Prompts, plan_jobs
from sdxl_mel.synthesis.stack import Acting, parse_acting
from tests.loras import random_modules

SPEC = PRESETS["mini"]


@pytest.fixture(scope="module")
def lora(slim_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stack") / "lora.safetensors"
    modules = random_modules("unet", open_base(slim_sdxl, ("unet",)).unet, seed=1)
    write_lora(path, Lora(modules, LoraHeader(spec=SPEC)))
    return path


def draw(base: Path, *loras: str) -> np.ndarray:
    return drawn(Generator.open(str(base), loras=loras, preset="mini"))


def drawn(generator: Generator) -> np.ndarray:
    jobs = plan_jobs(Prompts([PromptLine(prompt="piano")]), generator.fitting(), SPEC.tile_seconds, long=False)
    (result,) = generator.draw(jobs, Sampling(steps=3, guidance=1.0))
    return result.levels


def test_an_interval_of_everything_is_the_lora_and_of_nothing_that_is_walked_the_base(
    slim_sdxl: Path, lora: Path
) -> None:
    always, never, early = (draw(slim_sdxl, f"{lora}{acting}") for acting in ("@0-1", "@0.999-1", "@0.5-1"))
    np.testing.assert_array_equal(always, draw(slim_sdxl, str(lora)))
    np.testing.assert_array_equal(never, draw(slim_sdxl))
    assert (early != always).any()
    assert (early != never).any()


def test_one_lora_twice_acts_at_both_intervals(slim_sdxl: Path, lora: Path) -> None:
    twice = draw(slim_sdxl, f"{lora}@0-0.5", f"{lora}@0.5-1")
    np.testing.assert_array_equal(twice, draw(slim_sdxl, str(lora)))


def test_changes_that_are_no_low_rank_act_when_and_where_they_are_told(slim_sdxl: Path, tmp_path: Path) -> None:
    name = "lora_unet_output_blocks_0_1_proj_in"
    bias = open_base(slim_sdxl, ("unet",)).unet.up_blocks[0].attentions[0].proj_in.bias
    save_file({f"{name}.diff_b": torch.ones_like(bias)}, tmp_path / "difference.safetensors")
    file = str(tmp_path / "difference.safetensors")
    without = draw(slim_sdxl)
    assert (draw(slim_sdxl, f"{file}#content") != without).any()
    np.testing.assert_array_equal(draw(slim_sdxl, f"{file}@0.999-1"), without)
    with pytest.raises(InputError, match="has no style layers"):
        draw(slim_sdxl, f"{file}#style")


def test_layers_are_those_of_their_blocks(slim_sdxl: Path, lora: Path) -> None:
    style, both = draw(slim_sdxl, f"{lora}#style"), draw(slim_sdxl, str(lora))
    assert (style != both).any()
    assert (style != draw(slim_sdxl, f"{lora}#content")).any()
    generator = Generator.open(str(slim_sdxl), loras=[f"{lora}#style"], preset="mini")
    generator.rescale(0.0)
    np.testing.assert_array_equal(drawn(generator), draw(slim_sdxl))
    generator.rescale(1.0)
    np.testing.assert_array_equal(drawn(generator), style)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors:0.8@0.3-1#style", ("a.safetensors:0.8", Acting((0.3, 1.0), "style"))),
        ("a@home.safetensors:1", ("a@home.safetensors:1", Acting())),
        ("a.safetensors#content", ("a.safetensors", Acting(layers="content"))),
    ],
)
def test_when_and_where_a_lora_acts_is_read(text: str, expected: tuple[str, Acting]) -> None:
    assert parse_acting(text) == expected


@pytest.mark.parametrize("text", ["a@0.9-0.3", "a@0-1.5", "a#melody"])
def test_impossible_stacks_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--lora"):
        parse_acting(text)


def test_with_and_without_are_two_separate_runs_bit_for_bit(slim_sdxl: Path, lora: Path, tmp_path: Path) -> None:
    def run(name: str, **settings: object) -> generate.Report:
        values = {"base": str(slim_sdxl), "preset": "mini", "steps": 2, "prompt": "piano", "num": 2, "method": "fast"}
        return generate.run(validated(generate.Config, values | {"out": tmp_path / name} | settings, "test"))

    report = run("ab", lora=str(lora), ab=True)
    run("tuned", lora=str(lora))
    run("bare")
    for name, folder in (("tuned", "with"), ("bare", "without")):
        for file in ("0001.png", "0002.png", "0001.wav", "manifest.json"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "ab" / folder / file).read_bytes(), (name, file)
    assert (tmp_path / "ab" / "ab.html").read_text().count("<audio ") == 4
    assert "mean distance to without" in report.summary()
    assert read_spectrogram(tmp_path / "ab" / "without" / "0001.png").record is not None
