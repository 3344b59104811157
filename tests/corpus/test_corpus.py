"""The corpus: true captions, disjoint splits, parts in range, no invented note."""

import numpy as np
import pytest

from sdxl_mel.corpus.arrangement import arrange, excerpt
from sdxl_mel.corpus.captions import TEMPI, captions_of
from sdxl_mel.corpus.instruments import BASE, INSTRUMENTS, LEFT_OUT, base_pairs, left_out_pairs
from sdxl_mel.corpus.rendering import SAMPLE_RATE
from sdxl_mel.corpus.scores import Note, piece_splits, pieces_of, score_bank
from sdxl_mel.corpus.tracks import pairs_of, plan_tracks, render_track


def test_the_score_bank_holds_chorales_in_four_parts_and_tunes_in_one() -> None:
    bank = score_bank()
    assert len(bank) > 300
    for piece in bank.values():
        assert len(piece.parts) == (4 if piece.style == "chorale" else 1)
        assert piece.mode in ("major", "minor")
        assert piece.transcriber and "@" not in piece.transcriber
        assert all(note.duration > 0 and 0 <= note.pitch < 128 for part in piece.parts for note in part)


def test_splits_are_disjoint_by_piece_and_cover_both_styles() -> None:
    assert set(piece_splits()) == set(score_bank())
    names = {split: {piece.identifier for piece in pieces_of(split)} for split in ("train", "validation", "test")}
    assert sum(map(len, names.values())) == len(score_bank())
    for split in names:
        assert {piece.style for piece in pieces_of(split)} == {"chorale", "folk"}


def test_held_out_pairs_leave_every_instrument_in_training_with_most_others() -> None:
    held_out, seen = base_pairs(held_out=True), base_pairs(held_out=False)
    assert len(held_out) == 15
    assert not set(held_out) & set(seen)
    assert {name for pair in held_out for name in pair} == set(BASE)
    assert all(sum(name in pair for pair in seen) >= 10 for name in BASE)
    assert not set(BASE) & set(LEFT_OUT)


@pytest.mark.parametrize("group", ["base", "left-out"])
def test_training_never_plans_a_test_piece_or_a_held_out_pair(group) -> None:
    training = plan_tracks("train", 300, group=group)
    unseen = plan_tracks("test-unseen", 100, group=group)
    assert not {plan.piece for plan in training} & {plan.piece for plan in unseen}
    pairs = {frozenset(plan.instruments) for plan in training}
    assert not pairs & {frozenset(plan.instruments) for plan in unseen}
    assert all(len(plan.instruments) == 2 for plan in unseen)
    assert bool({name for plan in training for name in plan.instruments} & set(LEFT_OUT)) == (group == "left-out")


def test_left_out_pairs_split_without_overlap() -> None:
    train, unseen = pairs_of("train", "left-out"), pairs_of("test-unseen", "left-out")
    assert sorted([*train, *unseen]) == sorted(left_out_pairs())
    assert {new for new, _ in unseen} == set(LEFT_OUT)


def test_regularization_is_what_the_base_knows() -> None:
    solos = {plan.instruments for plan in plan_tracks("regularization", 60)}
    assert solos <= {(name,) for name in BASE}
    plans = plan_tracks("regularization", 60, group="left-out")
    assert {len(plan.instruments) for plan in plans} == {1, 2}
    held_out = {frozenset(pair) for pair in base_pairs(held_out=True)}
    assert not held_out & {frozenset(plan.instruments) for plan in plans}
    assert {name for plan in plans for name in plan.instruments} <= set(BASE)


def test_a_plan_does_not_depend_on_how_many_there_are() -> None:
    assert plan_tracks("train", 5, seed=3) == plan_tracks("train", 9, seed=3)[:5]
    assert plan_tracks("train", 5, seed=3) != plan_tracks("train", 5, seed=4)


@pytest.mark.parametrize("style", ["chorale", "folk"])
def test_an_arrangement_keeps_every_pitch_class_and_stays_in_range(style) -> None:
    piece = next(piece for piece in score_bank().values() if piece.style == style)
    for transposition in (-4, 0, 3):
        players = (INSTRUMENTS["cello"], INSTRUMENTS["flute"])
        parts = arrange(piece, players, transposition)
        sources = [piece.parts[:1], piece.parts[1:]] if style == "chorale" else [piece.parts, piece.parts]
        for player, notes, voices in zip(players, parts, sources):
            assert all(player.lowest <= note.pitch <= player.highest for note in notes)
            asked = [(note.onset, (note.pitch + transposition) % 12) for voice in voices for note in voice]
            assert [(note.onset, note.pitch % 12) for note in notes] == asked


def test_an_excerpt_trims_and_repeats() -> None:
    notes = [Note(0.0, 2.0, 60), Note(2.0, 2.0, 62)]
    assert excerpt(notes, 4.0, 1.0, 4.0) == [Note(0.0, 1.0, 60), Note(1.0, 2.0, 62), Note(3.0, 1.0, 60)]


def test_captions_say_what_was_asked() -> None:
    piece = next(piece for piece in score_bank().values() if piece.style == "chorale" and piece.mode == "minor")
    tags, sentence, short = captions_of(piece, ("flute", "piano"), "slow")
    assert tags == ("instrumental, flute and piano, slow, minor key, baroque chorale, flute melody with piano harmony")
    assert sentence == "a slow baroque chorale in a minor key, melody on flute over piano"
    assert short == "instrumental, flute and piano"


def test_a_render_is_exact_deterministic_and_holds_the_played_pitch() -> None:
    plan = plan_tracks("train", 1, seconds=3.0)[0]
    samples, rate = render_track(plan)
    assert rate == SAMPLE_RATE
    assert samples.shape == (2, 3 * SAMPLE_RATE)
    assert samples.dtype == np.float32
    assert np.array_equal(samples, render_track(plan)[0])
    assert TEMPI[plan.tempo][0] <= plan.bpm <= TEMPI[plan.tempo][1]
    assert np.abs(samples).max() > 0.01
