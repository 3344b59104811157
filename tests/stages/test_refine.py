"""generate --refine on a tiny random SDXL that carries a refiner: seeds, records, windows and circles, refusals."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sdxl_mel.config import validated
from sdxl_mel.errors import InputError
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.models.base import open_base
from sdxl_mel.models.carried import carried_hash, write_carried
from sdxl_mel.models.refiner import Refiner, new_refiner
from sdxl_mel.sound.melspec import LATENT_FACTOR, PRESETS
from sdxl_mel.stages import generate
from sdxl_mel.synthesis.refining import Refining

SPEC = PRESETS["mini"]
ONE_LEVEL = 1
REACH = 4
"""Latent columns that a place of the small refiner depends on to each side, in two steps."""


def _refiner(vae: str, channels: int = 1) -> Refiner:
    generator = torch.Generator().manual_seed(0)
    refiner = new_refiner(channels, (8,), 0, 1, draw_steps=2, churn=0.0, vae=vae)
    for parameter in refiner.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    refiner.spread.fill_(0.2)
    return refiner.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def base(slim_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the slim SDXL with a refiner for its VAE."""
    folder = shutil.copytree(slim_sdxl, tmp_path_factory.mktemp("refined") / "base")
    write_carried(folder / "refiner", _refiner(open_base(folder, ("vae",)).identity_of("vae")))
    return folder


def _draw(base: Path, out: Path, **settings: object) -> generate.Report:
    values = {"base": str(base), "preset": "mini", "prompt": "slow piano", "steps": 1, "format": "none", "out": out}
    return generate.run(validated(generate.Config, values | {"refine": True} | settings, "test"))


def _levels(folder: Path, name: str = "0001") -> np.ndarray:
    return read_spectrogram(folder / f"{name}.png").levels.astype(int)


@pytest.mark.slow
def test_it_is_in_the_record_and_repeats_itself(base: Path, tmp_path: Path) -> None:
    _draw(base, tmp_path / "one", num=2)
    _draw(base, tmp_path / "two")
    _draw(base, tmp_path / "plain", refine=False, num=2)
    _draw(base, tmp_path / "three", refine_steps=3)
    assert (tmp_path / "one" / "0001.png").read_bytes() == (tmp_path / "two" / "0001.png").read_bytes()
    made, plain = (read_spectrogram(tmp_path / name / "0001.png").record for name in ("one", "plain"))
    assert made is not None and plain is not None
    assert made.settings["refine_steps"] == 2
    assert made.inputs["refiner"] == carried_hash(base, "refiner")
    assert made.inputs.keys() - plain.inputs.keys() == {"refiner"}
    assert made.settings.keys() - plain.settings.keys() == {"refine_steps"}
    missing = [_levels(tmp_path / "one", name) - _levels(tmp_path / "plain", name) for name in ("0001", "0002")]
    assert np.abs(missing[0]).mean() > 1
    # What they share is what a refiner of random weights makes of a row.
    assert np.corrcoef(missing[0].ravel(), missing[1].ravel())[0, 1] < 0.6
    assert (_levels(tmp_path / "three") != _levels(tmp_path / "one")).any()


def test_a_seed_in_a_batch_equals_the_seed_alone(base: Path, tmp_path: Path) -> None:
    _draw(base, tmp_path / "two", num=2, seed=4)
    _draw(base, tmp_path / "alone", seed=5)
    assert np.abs(_levels(tmp_path / "two", "0002") - _levels(tmp_path / "alone")).max() <= ONE_LEVEL


@pytest.mark.parametrize(("mode", "loop", "frames"), [("joint", True, 608), ("independent", False, 600)])
def test_long_pieces_are_refined(base: Path, tmp_path: Path, mode: str, loop: bool, frames: int) -> None:
    _draw(base, tmp_path, seconds=9.6, mode=mode, loop=loop)
    assert _levels(tmp_path).shape[1] == frames


def test_windows_of_a_picture_agree_and_a_circle_goes_on() -> None:
    refining = Refining(_refiner(""), 2, "")
    length, width = 64, 32
    levels = np.random.default_rng(0).integers(60, 200, (SPEC.n_mels, length * LATENT_FACTOR, 1), dtype=np.uint8)

    def refined(first: int, columns: int = width, circle: int | None = None) -> np.ndarray:
        frames = np.arange(first * LATENT_FACTOR, (first + columns) * LATENT_FACTOR) % levels.shape[1]
        return refining.refined(levels[:, frames], first, spec=SPEC, seed=3, circle=circle).astype(int)

    def apart(one: np.ndarray, other: np.ndarray, from_one: int, from_other: int, columns: int) -> int:
        pieces = [
            window[:, first * LATENT_FACTOR : (first + columns) * LATENT_FACTOR]
            for window, first in ((one, from_one), (other, from_other))
        ]
        return int(np.abs(pieces[0] - pieces[1]).max())

    # Columns 24 to 28 are far enough from the ends of both windows.
    assert apart(refined(0), refined(20), 24, 4, 4) <= ONE_LEVEL
    # Columns 68 to 72 of the circle are its columns 4 to 8.
    assert apart(refined(44, circle=length), refined(0, circle=length), 24, 4, 4) <= ONE_LEVEL
    assert apart(refined(44), refined(0), 24, 4, 4) > 10
    # The whole circle has no ends: its columns 0 to 4 are those of a window across the place where it closes.
    assert apart(refined(48, circle=length), refined(0, length, length), 16, 0, 4) <= ONE_LEVEL


def test_a_loop_of_a_tile_has_time_as_a_circle(base: Path, tmp_path: Path) -> None:
    _draw(base, tmp_path, loop=True)
    assert _levels(tmp_path).shape[1] == SPEC.width


def test_what_cannot_be_refined_is_refused(base: Path, slim_sdxl: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="carries no refiner for the VAE in use; train one with --task refiner"):
        _draw(slim_sdxl, tmp_path / "none")
    with pytest.raises(InputError, match="--refine-steps needs --refine"):
        _draw(base, tmp_path / "steps", refine=False, refine_steps=2)
    with pytest.raises(InputError, match="refine_steps: found 0"):
        _draw(base, tmp_path / "steps", refine_steps=0)
    other = shutil.copytree(base, tmp_path / "other")
    write_carried(other / "refiner", _refiner("another VAE"))
    with pytest.raises(InputError, match="carries no refiner for the VAE in use"):
        _draw(other, tmp_path / "vae")
    write_carried(other / "refiner", _refiner(open_base(base, ("vae",)).identity_of("vae"), channels=3))
    with pytest.raises(InputError, match="is for pictures of 3 channels; these have 1"):
        _draw(other, tmp_path / "channels")
    assert not [path for path in tmp_path.glob("*/0001.png") if path.parent != other]
