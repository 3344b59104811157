import numpy as np
import pytest

from sdxl_mel.metrics.alignment import (
    audio_retrieval,
    matched_gap,
    matched_scores,
    mean_by_prompt,
    r_precision,
    text_retrieval,
)


def scores_of(clips, prompts, strength, seed=0):
    """Return a noisy score matrix in which clip i was made for prompt i mod prompts."""
    generator = np.random.default_rng(seed)
    truth = np.arange(clips) % prompts
    matrix = 0.3 + 0.05 * generator.standard_normal((clips, prompts))
    matrix[np.arange(clips), truth] += strength
    return matrix, truth


def test_a_perfect_model_finds_every_prompt():
    matrix, truth = scores_of(40, 10, strength=1.0)
    found = text_retrieval(matrix, truth)
    assert (found.recall_1.value, found.recall_5.value, found.reciprocal_rank.value) == (1.0, 1.0, 1.0)
    assert found.recall_1.low < 1.0
    assert (found.chance_1, found.chance_5) == (0.1, 0.5)
    assert audio_retrieval(matrix, truth).recall_1.value == 1.0
    gap = matched_gap(matrix, truth, 999, seed=0)
    assert gap.p == pytest.approx(1 / 1000)
    assert gap.interval.value == pytest.approx(1.0, abs=0.05)


def test_shuffled_prompts_drop_to_chance():
    matrix, truth = scores_of(200, 20, strength=0.1)
    shuffled = np.random.default_rng(1).permutation(truth)
    gap = matched_gap(matrix, shuffled, 499, seed=0)
    assert gap.p > 0.05
    assert gap.interval.low < 0 < gap.interval.high
    found = text_retrieval(matrix, shuffled)
    assert found.recall_1.low <= found.chance_1 <= found.recall_1.high
    assert r_precision(matrix, shuffled, 9, 20, seed=0) == pytest.approx(0.1, abs=0.06)


def test_equal_scores_share_their_rank():
    found = text_retrieval(np.zeros((6, 3)), np.array([0, 1, 2, 0, 1, 2]))
    assert found.median_rank == 2.0
    assert found.recall_1.value == 0.0
    assert r_precision(np.zeros((6, 3)), np.array([0, 1, 2, 0, 1, 2]), 2, 10, seed=0) == 0.5


def test_ranks_against_a_plain_loop():
    matrix, truth = scores_of(30, 7, strength=0.03, seed=3)
    ranks = [1 + sum(matrix[i, j] > matrix[i, truth[i]] for j in range(7)) for i in range(30)]
    assert text_retrieval(matrix, truth).reciprocal_rank.value == pytest.approx(np.mean(1 / np.array(ranks)))


def test_chance_of_audio_retrieval_is_that_of_random_scores():
    generator = np.random.default_rng(0)
    truth = np.arange(24) % 6
    draws = [audio_retrieval(generator.standard_normal((24, 6)), truth) for _ in range(200)]
    assert np.mean([each.recall_1.value for each in draws]) == pytest.approx(draws[0].chance_1, abs=0.03)
    assert np.mean([each.recall_5.value for each in draws]) == pytest.approx(draws[0].chance_5, abs=0.03)


def test_p_is_uniform_when_prompts_are_ignored():
    values = [matched_gap(*scores_of(20, 5, 0.0, seed), 99, seed).p for seed in range(150)]
    assert 0.01 <= np.mean(np.array(values) <= 0.05) <= 0.10


def test_means_by_prompt():
    matrix, truth = scores_of(6, 3, 0.0)
    own = matched_scores(matrix, truth)
    by_prompt = mean_by_prompt(own, ["a", "b", "c", "a", "b", "c"])
    assert by_prompt["b"] == pytest.approx((own[1] + own[4]) / 2)
    assert list(by_prompt) == ["a", "b", "c"]
