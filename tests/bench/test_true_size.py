"""The walk at true size: what its measurements say of a process, and the whole way with a tiny SDXL."""

import sys
from pathlib import Path

import pytest

from bench.true_size import run
from bench.true_size.walk import LINES, follow
from sdxl_mel.errors import SdxlMelError

MB = 1_000_000


def test_peak_and_end_of_a_process(tmp_path):
    code = "import time; held = bytearray(150_000_000); time.sleep(0.5); del held; time.sleep(1.0); print('said')"
    peak, last = follow([sys.executable, "-c", code], tmp_path / "logs" / "step.log")
    assert peak > 150 * MB > 100 * MB > last > MB
    assert (tmp_path / "logs" / "step.log").read_text() == "said\n"


def test_a_process_is_killed_when_what_is_waited_for_is_there(tmp_path):
    code = f"import pathlib, time; pathlib.Path({str(tmp_path / 'state')!r}).mkdir(); time.sleep(60)"
    assert follow([sys.executable, "-c", code], tmp_path / "log", tmp_path / "state")[0] > 0


@pytest.mark.parametrize(("code", "until"), [("raise SystemExit('too small')", None), ("pass", "never")])
def test_another_end_than_expected_is_told(tmp_path, code, until):
    with pytest.raises(SdxlMelError, match="ended with code"):
        follow([sys.executable, "-c", code], tmp_path / "log", tmp_path / until if until else None)


@pytest.mark.slow
def test_the_whole_way_with_a_tiny_sdxl(tmp_path):
    table = run("tiny", tmp_path)
    assert len(table.rows) == len(LINES) + 1
    assert any("722; with text encoders 722 + 18 + 18" in note for note in table.notes)
    assert all(Path(tmp_path / "tiny" / name).exists() for name in ("fused.safetensors", "long.wav", "scores"))
    assert run("tiny", tmp_path) == table
