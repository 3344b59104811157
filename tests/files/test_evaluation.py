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


def test_metrics_of_an_embedder_that_is_not_listed_are_refused(tmp_path):
    write_evaluation(tmp_path / "metrics.json", evaluation(fad=0.6))
    content = json.loads((tmp_path / "metrics.json").read_text())
    content["metrics"]["fad"]["embedder"] = "musicnn"
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="name the embedder musicnn, which is not among its embedders"):
        read_evaluation(tmp_path)


def test_an_evaluation_of_schema_1_is_read_with_the_names_of_schema_2(tmp_path):
    metric = {"value": 0.5, "n": 3, "method": "m", "meaning": "w", "embedder": "tagbridge"}
    graded = {"band": "good", "band_span": ["good", "weak"], "no_band": None}
    details = {"p": 0.01, "floor": {"value": 0.1, "clips": 4, "against": 5}, "std": 0.2}
    old = evaluation().model_dump(mode="json") | {
        "schema_version": 1,
        "metrics": {"tagbridge_mean": metric | graded | {"details": details, "by_prompt": {"band": 0.5}}},
        "absent": [{"metric": "tagbridge", "why": "not installed"}],
        "embedders": {"tagbridge": {"weights": "w", "rate": 16000, "windows": "3 s", "dimensions": 100}},
        "clips": [{"file": "a.wav", "tagbridge_score": 0.5}],
    }
    (tmp_path / "metrics.json").write_text(json.dumps(old))
    found = read_evaluation(tmp_path)
    mean = found.metrics["tag_mean"]
    assert (mean.embedder, mean.grade, mean.grade_span) == ("tag-score", "good", ("good", "weak"))
    assert (mean.details.p, mean.details.floor.clips, mean.details.model_extra) == (0.01, 4, {"std": 0.2})
    assert mean.by_prompt == {"band": 0.5}
    assert (found.absent[0].metric, list(found.embedders)) == ("tag-score", ["tag-score"])
    assert found.clips[0]["tag_score"] == 0.5
    write_evaluation(tmp_path / "new.json", found)
    assert read_evaluation(tmp_path / "new.json") == found


def test_details_hold_only_what_was_given(tmp_path):
    metric = Metric(value=1.0, n=3, method="m", meaning="w", details={"chance": 0.25, "over_floor": None})
    assert metric.model_dump(mode="json")["details"] == {"chance": 0.25, "over_floor": None}


def test_a_newer_schema_is_named(tmp_path):
    (tmp_path / "metrics.json").write_text('{"schema_version": 99}')
    with pytest.raises(FormatError, match="schema_version 99, this toolkit reads 2; update sdxl-mel"):
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
