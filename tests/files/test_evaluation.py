import json

import pytest

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.evaluation import (
    Evaluation,
    Metric,
    failed_thresholds,
    read_evaluation,
    write_evaluation,
)
from sdxl_mel.record import Record


def evaluation(**metrics):
    return Evaluation(
        record=Record(stage="evaluate"),
        versions={},
        metrics={name: Metric(value=value, n=3, method="m", meaning="w") for name, value in metrics.items()},
        embedders={},
        sets={},
        clips=({"file": "a.wav", "score": 0.1 + 0.2},),
    )


def test_round_trip_and_significant_digits(tmp_path):
    write_evaluation(tmp_path / "metrics.json", evaluation(fad=1 / 3))
    again = read_evaluation(tmp_path)
    assert again.metrics["fad"].value == 0.333333333
    assert again.clips[0]["score"] == 0.3
    write_evaluation(tmp_path / "again.json", again)
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "metrics.json").read_bytes()


def test_every_metric_is_an_object_with_a_value(tmp_path):
    write_evaluation(tmp_path / "metrics.json", evaluation(fad=0.6, kad=2.0))
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert metrics["fad"]["value"] == 0.6
    assert all(isinstance(metric["value"], float) for metric in metrics.values())


@pytest.mark.parametrize("content", ["", "hello", "[]", "{}", '{"schema_version": 99}', '{"schema_version": 1}'])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(FormatError, match=r"metrics\.json"):
        read_evaluation(tmp_path)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="sdxl-mel evaluate"):
        read_evaluation(tmp_path)


def test_thresholds():
    found = evaluation(clap_mean=0.36, fad=0.6)
    assert failed_thresholds(found, {"clap_mean": 0.30}, {"fad": 1.0}) == []
    assert failed_thresholds(found, {"clap_mean": 0.40}, {"fad": 0.5}) == [
        "clap_mean = 0.36 is under 0.4",
        "fad = 0.6 is over 0.5",
    ]
    assert "absent" in failed_thresholds(found, {"kad": 0.0}, {})[0]
