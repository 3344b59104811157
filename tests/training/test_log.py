"""Alarms, patience and the log."""

from pathlib import Path

import pytest

from sdxl_mel.errors import ResourceError
from sdxl_mel.files.run import read_metrics
from sdxl_mel.training.log import Log, gap_alarm, out_of_patience
from sdxl_mel.training.lora_settings import Config
from sdxl_mel.training.run import memory_advice
from sdxl_mel.training.samples import diversity, diversity_alarm


def _losses(held_out, trained=0.2):
    return {"held out": [held_out] * 10, "trained": [trained] * 10}


@pytest.mark.parametrize(("held_out", "alarms"), [(0.2, False), (0.249, False), (0.26, True)])
def test_the_gap_between_trained_and_held_out(held_out, alarms):
    assert (gap_alarm(_losses(held_out), 0.25) is not None) is alarms


@pytest.mark.parametrize(
    ("course", "patience", "stops"),
    [
        ([3, 2, 1], 2, False),
        ([3, 1, 2], 2, False),
        ([3, 1, 2, 2], 2, True),
        ([3, 1, 2, 0.5], 2, False),
        ([1, 2, 3, 4], 0, False),
    ],
)
def test_patience(course, patience, stops):
    validations = [{"step": step, "losses": _losses(loss)} for step, loss in enumerate(course)]
    assert out_of_patience(validations, patience) is stops


def test_falling_diversity():
    import numpy as np

    generator = np.random.default_rng(0)
    alike = [np.full((8, 8, 1), 0.5) for _ in range(3)]
    different = [generator.random((8, 8, 1)) for _ in range(3)]
    assert diversity(alike) == 0.0
    assert diversity(different) > 0.3
    assert diversity_alarm(0.1, 0.3, 0.5) is not None
    assert diversity_alarm(0.2, 0.3, 0.5) is None


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}]
    assert read_metrics(tmp_path / "nowhere") == []


def test_a_full_disk_is_one_line(tmp_path):
    from types import SimpleNamespace

    log = Log(tmp_path, SimpleNamespace(is_main_process=True, log=lambda *_, **__: None), 0)
    log.path = Path("/dev/full")
    with pytest.raises(ResourceError, match=r"No space left.*--resume"):
        log.write(1, {"loss": 0.5})


def test_out_of_memory_names_the_settings():
    advice = memory_advice(Config(base="b", cache="c", out="o", batch=8), "--adapter.rank 16")
    for setting in (
        "--micro-batch 4",
        "--hardware.gradient-checkpointing",
        "adamw-8bit",
        "--adapter.rank 16",
        "--resume",
    ):
        assert setting in advice
    assert "\n" not in advice
