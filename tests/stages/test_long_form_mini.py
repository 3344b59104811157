"""Long form on the shipped mini base: joins that nobody finds, and better ones than stitched tiles have."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from sdxl_mel.assets import MINI
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import context_frames, seam_scores
from sdxl_mel.stages import generate
from tests.stages.junction import junction_of_sound

SPEC = PRESETS["mini"]
JOINS = 20
OVERLAP = SPEC.width // 4
"""At half a tile every place would lie where tiles overlap: there would be nothing to compare joins with."""
STRIDE = SPEC.width - OVERLAP
CONTEXT = context_frames(SPEC.sample_rate / SPEC.hop_length)
SECONDS = (JOINS * STRIDE + SPEC.width) * SPEC.hop_length / SPEC.sample_rate
LOOPS = 8
PROMPTS = (
    "piano and violin, slow",
    "folk, flute and guitar, fast",
    "chorale, organ and trumpet",
    "violin ballad with soft piano",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (MINI / "model_index.json").exists(), reason="the mini base is not in this checkout"),
]


def drawn(out: Path, **settings: object) -> Path:
    values = {"base": "mini", "prompt": PROMPTS[0], "sampler": "dpmpp_2m", "steps": 5, "format": "none"}
    generate.run(generate.Config.model_validate(values | {"out": out} | settings))
    return out / "0001.png"


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Return the z-scores of 80 joins each way: the change across a join beside the same across all other stretches."""
    folder = tmp_path_factory.mktemp("long")
    starts = [join * STRIDE for join in range(1, JOINS + 1)]
    found: dict[str, list[float]] = {"joint": [], "independent": []}
    for mode, prompt in itertools.product(found, PROMPTS):
        file = drawn(folder / f"{mode} {prompt}", seconds=SECONDS, mode=mode, overlap="25%", prompt=prompt)
        values = dequantise(read_spectrogram(file).levels)
        found[mode] += seam_scores(values, starts, [OVERLAP] * JOINS, CONTEXT)
    return {mode: np.array(values) for mode, values in found.items()}


def test_joint_joins_are_like_any_other_place(scores: dict[str, np.ndarray]) -> None:
    """Neither standing out nor too smooth: a two-sided t-test of the mean, which tiles that are only stitched fail."""
    assert ttest_1samp(scores["joint"], 0).pvalue > 0.05
    assert ttest_1samp(scores["independent"], 0).pvalue < 1e-4


def test_joint_joins_are_better_than_those_of_stitched_tiles(scores: dict[str, np.ndarray]) -> None:
    assert abs(scores["joint"].mean()) < scores["independent"].mean() / 2


def test_loops_have_no_junction_in_their_sound_files(tmp_path: Path) -> None:
    drawn(tmp_path, loop=True, format="wav", num=LOOPS, method="fast")
    scores = [junction_of_sound(file, SPEC.width, SPEC) for file in sorted(tmp_path.glob("*.wav"))]
    assert len(scores) == LOOPS
    assert max(scores) < 1
