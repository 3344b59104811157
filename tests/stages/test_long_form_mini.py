"""Long form on the shipped mini base: joins that nobody finds, and better ones than stitched tiles have."""

from pathlib import Path

import numpy as np
import pytest

from sdxl_mel.files.base_source import MINI
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import context_frames, seam_scores, spectral_flux
from sdxl_mel.stages import generate
from tests.stages.junction import junction_of_sound

SPEC = PRESETS["mini"]
JOINS = 20
STRIDE = SPEC.width // 2
OVERLAP = SPEC.width - STRIDE
SECONDS = (JOINS * STRIDE + SPEC.width) * SPEC.hop_length / SPEC.sample_rate
CHANCE = 0.01
"""Of 128 grids of places, one or none at which the music changes more than at the joins."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (MINI / "model_index.json").exists(), reason="the mini base is not in this checkout"),
]


def drawn(out: Path, **settings: object) -> Path:
    values = {"base": "mini", "prompt": "piano and violin, slow", "sampler": "dpmpp_2m", "steps": 5, "format": "none"}
    generate.run(generate.Config.model_validate(values | {"out": out} | settings))
    return out / "0001.png"


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Return the values of one long piece each way, with the same 20 joins."""
    folder = tmp_path_factory.mktemp("long")
    files = {mode: drawn(folder / mode, seconds=SECONDS, mode=mode, overlap="50%") for mode in ("joint", "independent")}
    return {mode: dequantise(read_spectrogram(file).levels) for mode, file in files.items()}


def rank_of_joins(values: np.ndarray, gap: int) -> float:
    """Return the share of random grids of 20 places in the piece whose mean flux is at least that at the joins.

    Small where joins stand out. A grid is the joins' own, moved: its places are as far apart, so as independent.
    """
    context = context_frames(SPEC.sample_rate / SPEC.hop_length)
    flux = spectral_flux(values, gap, context)
    first = STRIDE + (OVERLAP - gap) // 2 - context
    grids = np.array([flux[first + shift :: STRIDE][: JOINS - 1].mean() for shift in range(-STRIDE // 2, STRIDE // 2)])
    return float((grids >= grids[STRIDE // 2]).mean())


@pytest.mark.parametrize("gap", [0, OVERLAP])
def test_joint_joins_do_not_stand_out(pieces: dict[str, np.ndarray], gap: int) -> None:
    assert rank_of_joins(pieces["joint"], gap) > CHANCE


def test_joint_joins_are_better_than_those_of_stitched_tiles(pieces: dict[str, np.ndarray]) -> None:
    context = context_frames(SPEC.sample_rate / SPEC.hop_length)
    starts = [join * STRIDE for join in range(1, JOINS + 1)]
    means = {
        mode: np.nanmean(seam_scores(values, starts, [OVERLAP] * JOINS, context)) for mode, values in pieces.items()
    }
    assert means["joint"] < means["independent"]


def test_loops_have_no_junction_in_their_sound_files(tmp_path: Path) -> None:
    """The mean of four: a note may well begin where one of them begins."""
    drawn(tmp_path, loop=True, format="wav", num=4, method="fast")
    scores = [junction_of_sound(file, SPEC.width, SPEC) for file in sorted(tmp_path.glob("*.wav"))]
    assert np.mean(scores) < 1
