"""Long form on the shipped mini base: joins that nobody finds, and better ones than stitched tiles have."""

from pathlib import Path

import numpy as np
import pytest

from sdxl_mel.files.base_source import MINI
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import context_frames, seam_scores
from sdxl_mel.stages import generate
from tests.stages.grid import share_of_calmer_grids
from tests.stages.junction import junction_of_sound

SPEC = PRESETS["mini"]
JOINS = 20
STRIDE = SPEC.width // 2
OVERLAP = SPEC.width - STRIDE
CONTEXT = context_frames(SPEC.sample_rate / SPEC.hop_length)
SECONDS = (JOINS * STRIDE + SPEC.width) * SPEC.hop_length / SPEC.sample_rate
LOOPS = 8
PROMPTS = ("piano and violin, slow", "folk, flute and guitar, fast")
CHANCE = 0.02
"""Of 128 grids of places, two or fewer at which the music changes more than at the joins, or less."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (MINI / "model_index.json").exists(), reason="the mini base is not in this checkout"),
]


def drawn(out: Path, **settings: object) -> Path:
    values = {"base": "mini", "prompt": PROMPTS[0], "sampler": "dpmpp_2m", "steps": 5, "format": "none"}
    generate.run(generate.Config.model_validate(values | {"out": out} | settings))
    return out / "0001.png"


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray]]:
    """Return the values of two long pieces each way, with the same 20 joins."""
    folder = tmp_path_factory.mktemp("long")
    found: dict[str, list[np.ndarray]] = {}
    for mode in ("joint", "independent"):
        for prompt in PROMPTS:
            out = folder / f"{mode} {prompt}"
            file = drawn(out, seconds=SECONDS, mode=mode, overlap="50%", prompt=prompt)
            found.setdefault(mode, []).append(dequantise(read_spectrogram(file).levels))
    return found


@pytest.mark.parametrize("gap", [0, OVERLAP])
def test_joint_joins_neither_stand_out_nor_hide(pieces: dict[str, list[np.ndarray]], gap: int) -> None:
    calmer = share_of_calmer_grids(pieces["joint"], STRIDE, JOINS, gap, OVERLAP, CONTEXT)
    assert CHANCE < calmer < 1 - CHANCE


def test_joint_joins_are_better_than_those_of_stitched_tiles(pieces: dict[str, list[np.ndarray]]) -> None:
    starts = [join * STRIDE for join in range(1, JOINS + 1)]
    means = {
        mode: np.nanmean([seam_scores(values, starts, [OVERLAP] * JOINS, CONTEXT) for values in found])
        for mode, found in pieces.items()
    }
    assert abs(means["joint"]) < means["independent"]


def test_loops_have_no_junction_in_their_sound_files(tmp_path: Path) -> None:
    drawn(tmp_path, loop=True, format="wav", num=LOOPS, method="fast")
    scores = [junction_of_sound(file, SPEC.width, SPEC) for file in sorted(tmp_path.glob("*.wav"))]
    assert len(scores) == LOOPS
    assert max(scores) < 1
