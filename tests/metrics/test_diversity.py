import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vendi_score import vendi

from sdxl_mel.evaluation.embeddings import SetEmbeddings
from sdxl_mel.metrics.diversity import (
    between_prompts,
    diversity_by_prompt,
    pairwise_distance,
    subset_mean,
    vendi_score,
)
from sdxl_mel.metrics.embedders.base import clip_vectors, unit_rows
from tests.metrics.simulated import units


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(1, 20), st.integers(0, 1000))
def test_pairwise_distance_is_the_trace_of_the_covariance(n, width, seed):
    rows = unit_rows(np.random.default_rng(seed).standard_normal((n, width)))
    pairs = 1 - (rows @ rows.T)[np.triu_indices(n, 1)]
    assert pairwise_distance(rows) == pytest.approx(pairs.mean(), abs=1e-10)
    assert pairwise_distance(rows) == pytest.approx(np.square(rows - rows.mean(0)).sum() / (n - 1), abs=1e-10)


@pytest.mark.parametrize(("n", "width"), [(20, 64), (200, 64)])
def test_vendi_agrees_with_its_package(n, width):
    rows = units(n, width, 1)
    assert vendi_score(rows) == pytest.approx(vendi.score_dual(rows), abs=1e-6)
    assert vendi_score(rows, order=2.0) == pytest.approx(vendi.score_dual(rows, q=2), abs=1e-6)


def test_vendi_counts_different_clips():
    rows = np.eye(8)
    assert vendi_score(rows) == pytest.approx(8.0)
    assert vendi_score(np.repeat(rows[:2], 4, axis=0)) == pytest.approx(2.0)


def test_between_prompts_leaves_pairs_of_one_prompt_out():
    rows, prompts = units(12, 16, 1), ["a", "b", "c"] * 4
    other = np.array(prompts)[:, None] != np.array(prompts)
    assert between_prompts(rows, prompts) == pytest.approx((1 - rows @ rows.T)[other].mean(), abs=1e-12)


def test_one_collapsed_prompt_is_named():
    rows = units(40, 32, 2)
    prompts = [f"prompt {index // 8}" for index in range(40)]
    rows[16:24] = unit_rows(rows[16] + 0.01 * np.random.default_rng(0).standard_normal((8, 32)))
    found = diversity_by_prompt(rows, prompts)
    assert [each.prompt for each in found if each.collapsed] == ["prompt 2"]


def test_healthy_prompts_are_not_called_collapsed():
    named = [
        each.prompt
        for seed in range(30)
        for each in diversity_by_prompt(units(20, 32, seed), [f"p{index // 4}" for index in range(20)])
        if each.collapsed
    ]
    assert named == []


def test_subset_mean_is_the_sets_own_yardstick():
    rows = units(300, 32, 3)
    distance, vendi_of_ten = subset_mean(rows, 10, seed=0)
    assert distance == pytest.approx(pairwise_distance(rows), rel=0.15)
    assert vendi_of_ten < vendi_score(rows)


def test_clip_vector_is_the_mean_of_raw_windows():
    clips = [np.array([[3.0, 0.0], [0.0, 1.0]], np.float32), np.array([[0.0, 2.0]], np.float32)]
    assert np.allclose(clip_vectors(clips), [[3 / np.sqrt(10), 1 / np.sqrt(10)], [0, 1]])
    embeddings = SetEmbeddings(clips)
    assert np.allclose(embeddings.rows, [[1, 0], [0, 1], [0, 1]])
    assert embeddings.owner.tolist() == [0, 0, 1]
