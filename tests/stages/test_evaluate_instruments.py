"""Which instruments a prompt names, and in which prompts' tiles all of them are found."""

import numpy as np
import pytest

from sdxl_mel.evaluation.clips import Clip
from sdxl_mel.evaluation.instruments import instruments, named_instruments
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.metrics.oracle import Oracle, statistics
from sdxl_mel.sound.melspec import PRESETS


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("instrumental, clarinet and flute, slow", ("clarinet", "flute")),
        ("instrumental, pan flute and flute", ("pan flute", "flute")),
        ("a slow tune for Pan Flute", ("pan flute",)),
        ("church organ melody with harp harmony, church organ and harp", ("church organ", "harp")),
        ("harpsichord", ("harpsichord",)),
        ("music", ()),
    ],
)
def test_named_instruments(prompt: str, names: tuple[str, ...]) -> None:
    assert named_instruments(prompt) == names


def test_what_is_found_is_said_of_every_prompt(tmp_path):
    """Of an oracle that hears a piano and a harp in everything; tiles of one prompt are averaged."""
    spec = PRESETS["mini"]
    levels = np.random.default_rng(0).integers(0, 255, (spec.n_mels, spec.width, 1), dtype=np.uint8)
    features = statistics(levels[None, ..., 0]).shape[1]
    labels = ("piano", "harp", "flute", "banjo")
    zero, one = np.zeros(features, np.float32), np.ones(features, np.float32)
    bias = np.array([3, 2, 1, 0, 0], np.float32)
    oracle = Oracle(labels, zero, one, np.zeros((features, len(bias)), np.float32), bias)
    prompts = {"0.png": "piano and harp", "1.png": "flute and piano", "2.png": "solo piano", "3.png": "no instrument"}
    for name in prompts:
        write_spectrogram(tmp_path / name, Spectrogram(levels, spec))
    clips = [Clip(name, tmp_path / name, "") for name in prompts]
    metrics, absent = instruments(clips, prompts, oracle, seed=0)
    assert metrics["instruments_all"].by_prompt == {"piano and harp": 1.0, "flute and piano": 0.0, "solo piano": 1.0}
    assert metrics["instruments_all"].value == pytest.approx(2 / 3)
    assert metrics["instruments_each"].details.by_instrument == {"piano": (3, 3), "harp": (1, 1), "flute": (0, 1)}
    assert absent == []
