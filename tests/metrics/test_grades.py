import pytest

from sdxl_mel.metrics.grades import fad_grade, grade, word_for


@pytest.mark.parametrize(
    ("metric", "value", "word"),
    [
        ("clap_mean", 0.1999, "poor"),
        ("clap_mean", 0.20, "weak"),
        ("clap_mean", 0.3649, "decent"),
        ("clap_mean", 0.50, "very strong"),
        ("diversity", 0.136, "healthy"),
        ("diversity", 0.05, "low"),
        ("diversity", 0.30, "very diverse"),
        ("fad", 0.647, "good"),
        ("fad", 0.30, "close"),
        ("fad", 2.0, "poor"),
    ],
)
def test_grades_are_half_open(metric, value, word):
    assert word_for(metric, value) == word


def test_grade_says_which_words_its_interval_spans():
    found = grade("clap_mean", "music_audioset", 0.3649, 0.33, 0.41)
    assert (found.word, found.span) == ("decent", ("decent", "strong"))


@pytest.mark.parametrize("family", [None, "630k-audioset", "music_speech"])
def test_other_models_have_no_grades(family):
    found = grade("clap_mean", family, 0.36, 0.33, 0.40)
    assert found.word is None
    assert "music_audioset" in found.why_none


def test_fad_grade_is_suppressed_where_n_is_too_small():
    assert fad_grade("music_audioset", 0.647, 0.5, 0.8, clips=10, floor=0.2).why_none.startswith(
        "inconclusive: 10 clips"
    )
    assert fad_grade("music_audioset", 0.50, 0.4, 0.6, clips=80, floor=0.45).why_none.startswith("inconclusive")
    assert fad_grade("music_audioset", 0.647, 0.5, 0.79, clips=80, floor=0.1).word == "good"


def test_metrics_without_a_calibration_have_no_grade():
    assert grade("kad", "music_audioset", 1.0, None, None) is None
