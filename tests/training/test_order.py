"""The order of examples: exact counts, independent of devices and micro-batches."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.training.batches import Stream, is_regularized, regularized_before
from sdxl_mel.training.task import micro_batches, share_of


@given(st.integers(0, 500), st.integers(0, 99))
def test_of_the_first_n_exactly_floor_n_share_are_regularisation(count, percent):
    share = percent / 100
    regularized = sum(is_regularized(slot, share) for slot in range(count))
    assert regularized == regularized_before(count, share) == int(count * Fraction(percent, 100))


@pytest.mark.parametrize(("share", "batch", "expected"), [(0.25, 16, 4), (0.5, 8, 4), (0.0, 8, 0)])
def test_every_batch_holds_its_share(share, batch, expected):
    for step in range(20):
        assert sum(is_regularized(step * batch + place, share) for place in range(batch)) == expected


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(0, 3))
def test_an_epoch_holds_every_example_its_repeats(repeats, epoch):
    stream = Stream("train", repeats, seed=3)
    size = sum(repeats)
    drawn = Counter(stream[place] for place in range(epoch * size, (epoch + 1) * size))
    assert drawn == Counter(dict(enumerate(repeats)))


def test_epochs_and_streams_differ_and_come_again():
    stream = Stream("train", [1] * 50, seed=3)
    first, second = ([stream[place] for place in range(start, start + 50)] for start in (0, 50))
    assert first != second
    assert first == [Stream("train", [1] * 50, seed=3)[place] for place in range(50)]
    assert first != [Stream("regularization", [1] * 50, seed=3)[place] for place in range(50)]


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 9))
def test_processes_and_micro_batches_cover_the_batch_once(batch, processes, most):
    places = [
        place
        for process in range(processes)
        for piece in micro_batches(share_of(batch, process, processes), most)
        for place in piece
    ]
    assert places == list(range(batch))
    pieces = micro_batches(share_of(batch, 0, processes), most)
    assert all(len(piece) <= most for piece in pieces)
