"""vary as a command: every combination once, the same again, and one page."""

import json
from pathlib import Path

import numpy as np
import pytest

from sdxl_mel.config import validated
from sdxl_mel.errors import InputError
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.models.base import open_base
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages import generate, vary
from tests.loras import random_modules
from tests.sounds import FIXTURES

SPEC = PRESETS["mini"]


def run(base: Path, out: Path, **settings: object) -> vary.Report:
    values = {"base": str(base), "preset": "mini", "steps": 1, "prompt": "piano", "out": out}
    return vary.run(validated(vary.Config, values | settings, "test"))


def levels(folder: Path, number: int) -> np.ndarray:
    return read_spectrogram(folder / f"{number:04}.png").levels


def test_every_cell_is_what_generate_draws_and_an_interrupted_grid_continues(slim_sdxl: Path, tmp_path: Path) -> None:
    grid = {"seeds": (3, 4), "guidances": (1.0, 4.0)}
    report = run(slim_sdxl, tmp_path, **grid)
    assert [line.split(":")[1].rpartition(",")[0].strip() for line in report.variations] == [
        "guidance 1, seed 3",
        "guidance 1, seed 4",
        "guidance 4, seed 3",
        "guidance 4, seed 4",
    ]
    assert report.variations[0].endswith("distance 0.000")
    page = report.page.read_text()
    assert page.count("<audio ") == page.count('src="data:image/png') == 4
    values = {"base": str(slim_sdxl), "preset": "mini", "steps": 1, "prompt": "piano", "format": "none"}
    one = validated(generate.Config, values | {"seed": 4, "guidance": 4.0, "out": tmp_path / "one"}, "test")
    generate.run(one)
    np.testing.assert_array_equal(levels(tmp_path, 4), levels(tmp_path / "one", 1))
    before = (tmp_path / "0001.png").stat().st_mtime_ns
    (tmp_path / "0004.png").unlink()
    assert run(slim_sdxl, tmp_path, **grid).variations == report.variations
    assert (tmp_path / "0001.png").stat().st_mtime_ns == before
    np.testing.assert_array_equal(levels(tmp_path, 4), levels(tmp_path / "one", 1))
    assert len(json.loads((tmp_path / "manifest.json").read_text())["results"]) == 4


def test_scales_of_a_lora_are_axes_and_none_is_the_base(slim_sdxl: Path, tmp_path: Path) -> None:
    modules = random_modules("unet", open_base(slim_sdxl, ("unet",)).unet, seed=1)
    write_lora(tmp_path / "l.safetensors", Lora(modules, LoraHeader(spec=SPEC)))
    run(slim_sdxl, tmp_path / "grid", lora=str(tmp_path / "l.safetensors"), scales=(0.0, 1.0))
    run(slim_sdxl, tmp_path / "bare")
    np.testing.assert_array_equal(levels(tmp_path / "grid", 1), levels(tmp_path / "bare", 1))
    assert (levels(tmp_path / "grid", 2) != levels(tmp_path / "bare", 1)).any()


def test_a_sound_is_varied_by_strengths(slim_sdxl: Path, tmp_path: Path) -> None:
    report = run(slim_sdxl, tmp_path, source=FIXTURES / "piano.flac", strengths=(0.5, 1.0), steps=2, guidance=1.0)
    assert len(report.variations) == 2
    assert (levels(tmp_path, 1) != levels(tmp_path, 2)).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strengths": (0.5,)}, "give --source"),
        ({"source": FIXTURES / "piano.flac"}, "give --strengths"),
        ({"scales": (0.5,)}, "no --lora to scale"),
        ({"guidances": (-1.0,)}, "--guidances: found -1"),
        ({"source": FIXTURES / "piano.flac", "strengths": (0.5, 2.0)}, "--strengths: found a strength of 2"),
        ({"seeds": (1, 1)}, "a value stands twice in 1 1"),
    ],
)
def test_impossible_grids_are_refused(
    slim_sdxl: Path, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(slim_sdxl, tmp_path, **settings)
    assert not list(tmp_path.iterdir())
