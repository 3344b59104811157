"""Splits: no artist in two, the same for everyone, and pairs of instruments that training never sees."""

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_mel.dataset.splits import Candidate, assign, choose_pairs
from sdxl_mel.errors import InputError

NAMES = ("cello", "flute", "harp", "oboe", "piano")
SETTINGS = {"validation": 0.1, "test": 0.2, "held_out": (), "vocals": "regularization", "seed": 0}


def candidates(count: int = 200) -> list[Candidate]:
    pairs = list(combinations(NAMES, 2))
    return [
        Candidate(f"t{i}", f"a{i // 3}" if i % 4 else "", vocal=i % 5 == 0, instruments=pairs[i % len(pairs)])
        for i in range(count)
    ]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.sets(st.sampled_from(NAMES))), max_size=30),
    st.integers(0, 99),
)
def test_no_artist_and_no_held_out_pair_is_where_it_may_not_be(rows, seed: int) -> None:
    tracks = [
        Candidate(f"t{i}", f"a{artist}" if artist else "", vocal, tuple(instruments))
        for i, (artist, vocal, instruments) in enumerate(rows)
    ]
    places = assign(tracks, **SETTINGS | {"held_out": (("flute", "piano"),), "seed": seed})
    for artist in {track.artist for track in tracks} - {""}:
        splits = {places[track.track].split for track in tracks if track.artist == artist} - {""}
        assert splits == {"train", "regularization"} or len(splits) == 1
        for track in (track for track in tracks if track.artist == artist and track.vocal):
            trained = splits <= {"train", "regularization"}
            assert (places[track.track].split == "regularization") == trained, "left out only where it must be"
    for track in tracks:
        place = places[track.track]
        if ("flute", "piano") in track.pairs and not track.vocal:
            assert (place.split, place.group) == ("test", "unseen")
        assert place.split != "regularization" or track.vocal
        assert bool(place.split) != bool(place.left_out)


def test_shares_are_about_what_was_asked() -> None:
    tracks = [Candidate(f"t{i}", "", False, ()) for i in range(2000)]
    places = [place.split for place in assign(tracks, **SETTINGS).values()]
    assert 0.17 < places.count("test") / 2000 < 0.23
    assert 0.08 < places.count("validation") / 2000 < 0.12


def test_more_tracks_of_other_artists_move_none() -> None:
    few, many = assign(candidates(99), **SETTINGS), assign(candidates(200), **SETTINGS)
    assert all(many[track] == place for track, place in few.items())


def test_small_sets_have_a_test_and_a_validation_track() -> None:
    tracks = [Candidate(f"t{i}", "", False, ()) for i in range(3)]
    assert sorted(place.split for place in assign(tracks, **SETTINGS | {"test": 0.01}).values()) == [
        "test",
        "train",
        "validation",
    ]
    assert assign(tracks[:1], **SETTINGS | {"test": 0.01})["t0"].split in ("train", "validation")


def test_what_becomes_of_vocals() -> None:
    tracks = [Candidate("v", "", True, ()), *(Candidate(f"t{i}", "", False, ()) for i in range(5))]
    assert assign(tracks, **SETTINGS | {"vocals": "drop"})["v"].left_out == "vocals (--vocals drop)"
    assert assign(tracks, **SETTINGS | {"vocals": "keep"})["v"].split in ("train", "validation", "test")
    singer = [Candidate("v", "a", True, ("flute", "piano")), Candidate("t", "a", False, ("flute", "piano"))]
    places = assign(singer, **SETTINGS | {"held_out": (("flute", "piano"),)})
    assert places["v"].left_out == "vocals, and its artist is kept for test"
    trained = assign(singer, **SETTINGS | {"validation": 0.0, "test": 0.0})
    assert {name: place.split for name, place in trained.items()} == {"v": "regularization", "t": "train"}
    assert assign(singer[:1], **SETTINGS)["v"].split == "regularization"


def test_a_source_that_decides_is_obeyed() -> None:
    tracks = [Candidate("x", "", False, ("flute", "piano"), "train"), Candidate("y", "", False, (), "test", "unseen")]
    places = assign(tracks, **SETTINGS | {"held_out": (("flute", "piano"),)})
    assert (places["x"].split, places["y"].split, places["y"].group) == ("train", "test", "unseen")


@pytest.mark.parametrize(
    ("split", "regularized"), [("train", "regularization"), ("test", ""), ("validation", ""), ("regularization",) * 2]
)
def test_vocals_that_a_source_keeps_from_training_are_not_trained(split: str, regularized: str) -> None:
    track = Candidate("v", "", True, (), split)
    assert assign([track], **SETTINGS)["v"].split == regularized
    assert assign([track], **SETTINGS | {"vocals": "keep"})["v"].split == split


def test_pairs_are_drawn_or_named() -> None:
    tracks = [replace(track, artist="") for track in candidates()]
    drawn = choose_pairs(tracks, ("2",), seed=1)
    assert len(set(drawn)) == 2 == len(set(choose_pairs(tracks, ("2",), seed=1)) & set(drawn))
    assert {choose_pairs(tracks, ("1",), seed=seed) for seed in range(20)} > {choose_pairs(tracks, ("1",), seed=1)}
    assert choose_pairs(tracks, ("Piano + flute",), seed=0) == (("flute", "piano"),)
    assert choose_pairs(tracks, (), seed=0) == ()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("piano+lute", "no track has 'lute' .did you mean 'flute'"),
        ("piano", "a number or two instruments"),
        ("99", "only 0 pairs"),
    ],
)
def test_pairs_that_cannot_be_held_out(wanted: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_pairs(candidates(), (wanted,), seed=0)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_training_gets_its_songs_first(count: int) -> None:
    for seed in range(200):
        for shares in ({}, {"test": 0.7, "validation": 0.25}, {"test": 0.0}):
            tracks = [Candidate(f"t{i}", f"a{i}", False, ()) for i in range(count)]
            splits = [place.split for place in assign(tracks, **SETTINGS | {"seed": seed} | shares).values()]
            assert "train" in splits
    vocal = [Candidate("v", "", True, ()), Candidate("t", "", False, ())]
    assert all(assign(vocal, **SETTINGS | {"seed": seed})["t"].split == "train" for seed in range(50))
    given = [Candidate("a", "", False, (), split="train"), Candidate("b", "", False, ())]
    assert {assign(given, **SETTINGS | {"seed": seed})["b"].split for seed in range(50)} > {"train"}
