"""A run's folder: what is written is read back, and its settings are a config again."""

import tomllib

import pytest

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.run import checkpoints, is_run, to_toml
from sdxl_mel.files.run_header import RunHeader, read_run, write_run
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import PRESETS

SETTINGS = {
    "base": 'a "quoted" name',
    "steps": 3,
    "vae": None,
    "adapter": {"rank": 4, "rank_patterns": {"mid_block.*": 2}, "targets": ["all-linear"]},
    "noise": {"offset": 0.05, "random_offset": False},
    "empty": {},
}
HEADER = RunHeader(
    spec=PRESETS["mini"],
    anchor="mel spectrogram",
    clip_skip=0,
    identity={},
    settings=SETTINGS,
    record=Record(stage="train"),
)


def test_written_and_read(tmp_path):
    assert not is_run(tmp_path)
    write_run(tmp_path, HEADER)
    assert is_run(tmp_path)
    assert read_run(tmp_path) == HEADER


def test_settings_as_toml_read_back():
    read = tomllib.loads(to_toml(SETTINGS))
    expected = {name: value for name, value in SETTINGS.items() if name not in ("vae", "empty")}
    assert read == expected


def test_settings_that_are_not_utf_8_are_refused():
    with pytest.raises(InputError, match=r"out: 'caf\\udce9' is not UTF-8"):
        to_toml({"out": "caf\udce9"})


def test_what_is_no_run(tmp_path):
    with pytest.raises(InputError, match="no training run"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FormatError, match="run.json: spec: Field required; train it again"):
        read_run(tmp_path)


def test_checkpoints_by_step(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for step in (250, 500):
        (tmp_path / "checkpoints" / f"step-{step:06d}.safetensors").touch()
    assert list(checkpoints(tmp_path)) == [250, 500]
