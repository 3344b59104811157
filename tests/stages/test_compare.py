import numpy as np
import pytest

from sdxl_mel.errors import InputError
from sdxl_mel.evaluation.compare import compare_evaluations, mismatches
from sdxl_mel.files.evaluation import EmbedderInfo, Evaluation, Metric, SetInfo, write_evaluation
from sdxl_mel.metrics.intervals import mean_interval
from sdxl_mel.record import Record
from sdxl_mel.stages.compare import Config, run

PROMPTS = [f"prompt {index}" for index in range(20)]


def evaluation(shift=0.0, seed=0, fad=0.6, weights="w", reference="r"):
    hard = np.random.default_rng(0).normal(0.35, 0.1, 20)
    values = hard + shift + np.random.default_rng(seed + 1).normal(0, 0.01, 20)
    interval = mean_interval(values)
    score = Metric(
        value=interval.value,
        low=interval.low,
        high=interval.high,
        se=interval.se,
        n=20,
        better="higher",
        embedder="clap",
        method="m",
        meaning="w",
        by_prompt=dict(zip(PROMPTS, map(float, values), strict=True)),
    )
    distance = Metric(value=fad, se=0.05, low=fad - 0.1, high=fad + 0.1, n=20, better="lower", method="m", meaning="w")
    return Evaluation(
        record=Record(stage="evaluate"),
        versions={},
        metrics={"clap_mean": score, "fad": distance},
        embedders={"clap": EmbedderInfo(weights=weights, rate=48000, windows="10 s", dimensions=512)},
        sets={"reference": SetInfo(used=1, left_out=0, seconds=1.0, files={"a": reference})},
        clips=(),
    )


def test_pairing_shows_what_the_spread_of_prompts_hides():
    paired, unpaired = compare_evaluations(evaluation(), evaluation(shift=0.03, seed=5))
    assert paired.verdict == "better"
    assert paired.interval.value == pytest.approx(0.03, abs=0.01)
    assert "20 prompts" in paired.interval.method
    assert unpaired.verdict == "not told apart"


def test_better_and_worse_follow_the_metric():
    verdicts = [compare_evaluations(evaluation(), evaluation(seed=5, fad=fad))[1].verdict for fad in (0.2, 0.58, 1.2)]
    assert verdicts == ["better", "not told apart", "worse"]


def test_equal_systems_are_rarely_told_apart():
    told = [compare_evaluations(evaluation(seed=s), evaluation(seed=s + 500))[0].verdict for s in range(200)]
    assert 0.01 <= np.mean([verdict != "not told apart" for verdict in told]) <= 0.10


def test_other_weights_are_not_compared():
    first, second = evaluation(), evaluation(weights="x", reference="s")
    assert [each.metric for each in compare_evaluations(first, second)] == ["fad"]
    notes = " ".join(mismatches(first, second))
    assert "other weights" in notes
    assert "reference clips differ" in notes


def test_two_files(tmp_path):
    write_evaluation(tmp_path / "base" / "metrics.json", evaluation())
    write_evaluation(tmp_path / "tuned" / "metrics.json", evaluation(shift=0.05, seed=3))
    paths = (tmp_path / "base" / "metrics.json", tmp_path / "tuned")
    report = run(Config(evaluations=paths, out=tmp_path / "out", fail_under={"clap_mean": 0.9}))
    assert "better" in report.summary()
    assert report.exit_code == 1
    assert (tmp_path / "out" / "report.html").read_text().count("<svg") == 2


def test_sweep_over_checkpoints(tmp_path):
    for step in (1000, 200, 500):
        (tmp_path / f"step-{step:06d}.safetensors").write_bytes(b"")
        write_evaluation(tmp_path / f"step-{step:06d}" / "metrics.json", evaluation(shift=step / 1e4))
    (tmp_path / "step-001500.safetensors").write_bytes(b"")
    for step, content in ((1600, "{"), (1700, "[]"), (1800, '{"schema_version": 2}')):
        (tmp_path / f"step-{step:06d}").mkdir()
        (tmp_path / f"step-{step:06d}" / "metrics.json").write_text(content)
    report = run(Config(runs=tuple(sorted(tmp_path.iterdir())), out=tmp_path / "out"))
    skipped = [f"step-{step:06d}" for step in (1500, 1600, 1700, 1800)]
    assert [each.what.split("/")[-1] for each in report.skipped] == skipped
    assert report.exit_code == 3
    assert report.summary().index("step-000500") < report.summary().index("step-001000")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "Best step" in page


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="0 of 1 checkpoints"):
        run(Config(runs=(tmp_path / "step-1.safetensors",)))
    with pytest.raises(ValueError, match="give two evaluations"):
        Config(evaluations=(tmp_path,))
    with pytest.raises(InputError, match="no evaluation .* sdxl-mel evaluate"):
        run(Config(evaluations=(tmp_path, tmp_path)))
