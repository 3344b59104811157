"""A base that stays open: it draws what is opened anew, and only what was asked for otherwise is opened anew."""

import os
from pathlib import Path

import numpy as np
import pytest

from sdxl_mel.diffusion.samplers import Sampling
from sdxl_mel.errors import InputError
from sdxl_mel.models.base import open_base
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Job, TimedText
from sdxl_mel.synthesis.warm import WarmBase
from tests.loras import random_modules


def drawn(generator: Generator) -> np.ndarray:
    job = Job(1, "piano", (TimedText(0.0, "piano"),), "", seed=3)
    return next(generator.draw([job], Sampling(steps=2))).levels


@pytest.fixture(scope="module")
def lora(slim_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a LoRA that says what pictures it draws, for a base that does not."""
    base, path = open_base(slim_sdxl), tmp_path_factory.mktemp("lora") / "a.safetensors"
    write_lora(path, Lora(random_modules("unet", base.unet, seed=1), LoraHeader(spec=PRESETS["mini"])))
    return path


def test_what_stays_open_draws_what_is_opened_anew(slim_sdxl: Path, lora: Path) -> None:
    warm = WarmBase()
    for scale in (1.0, 0.5, 1.0):
        anew = Generator.open(str(slim_sdxl), loras=[lora], scales=[scale], keep_base=False)
        assert np.array_equal(drawn(warm.open(str(slim_sdxl), loras=[lora], scales=[scale])), drawn(anew))
    bare = Generator.open(str(slim_sdxl), preset="mini")
    assert np.array_equal(drawn(warm.open(str(slim_sdxl), preset="mini")), drawn(bare))


def test_only_what_differs_is_opened_anew(slim_sdxl: Path, lora: Path) -> None:
    warm = WarmBase()
    first = warm.open(str(slim_sdxl), loras=[lora]).models.base
    assert warm.open(str(slim_sdxl), loras=[lora], scales=[0.3]).models.base is first
    with pytest.raises(InputError, match="--preset"):
        warm.open(str(slim_sdxl))
    second = warm.open(str(slim_sdxl), loras=[lora]).models.base
    config = slim_sdxl / "unet" / "config.json"
    os.utime(config, (0, 0))
    assert warm.open(str(slim_sdxl), loras=[lora]).models.base is not second
