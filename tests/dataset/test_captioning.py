"""Captions of a track: none lost, none sung about, each with its anchor; on the real table where it is at hand."""

import csv
import json
import os
import re
from pathlib import Path

import pytest

from sdxl_mel.captions.edits import Edit, Edited
from sdxl_mel.captions.tokens import ESTIMATE, MAX_TOKENS
from sdxl_mel.dataset.assemble import instruments_of
from sdxl_mel.dataset.captioning import TrackCaptions, caption_track, fates, write_log
from sdxl_mel.dataset.settings import Captioning
from sdxl_mel.dataset.splits import Candidate, assign
from sdxl_mel.dataset.tracks import SourceTrack

ANCHOR = "mel spectrogram"
VOICE = re.compile(
    r"\b(?:vocal\w*|voices?|sing(?:s|ing|ers?)?|sung|sang|lyrics?|choirs?|rap(?:s|pers?|ping)?|(?:fe)?male)\b",
    re.IGNORECASE,
)


def captioned(*captions: str, split: str = "", **options) -> TrackCaptions:
    track = SourceTrack("t", Path("t.wav"), captions, split=split)
    return caption_track(track, Captioning(**{"anchor": ANCHOR} | options), ESTIMATE)


def test_every_caption_has_a_fate() -> None:
    made = captioned("slow piano", "slow piano, perfect for a party", "Slow Piano", "", "I love it", "x " * 200)
    assert [caption.fate for caption in made.captions] == [
        "kept",
        "dropped",
        "dropped",
        "dropped",
        "dropped",
        "cleaned",
    ]
    assert made.texts[0] == "mel spectrogram, slow piano"
    assert len(made.texts) == 2
    assert made.captions[5].why.startswith("too long: without 'x x")
    assert fates([made]) == {
        "cleaned": 1,
        "dropped: nothing about the music is left": 1,
        "dropped: the same as another caption of the track": 2,
        "kept": 1,
        "dropped: empty": 1,
    }


def test_a_track_without_words_has_the_anchor() -> None:
    assert captioned().texts == (ANCHOR,)
    assert captioned("I like it").texts == (ANCHOR,)
    assert captioned("I like it", anchor="").texts == ()


@pytest.mark.parametrize(
    ("vocals", "texts"),
    [
        ("regularization", ("song with vocals",)),
        ("drop", ()),
        ("keep", ("mel spectrogram, piano", "mel spectrogram, a female singer")),
    ],
)
def test_what_vocals_become(vocals: str, texts: tuple[str, ...]) -> None:
    assert captioned("piano", "a female singer", vocals=vocals).texts == texts


def test_captions_of_a_given_regularization_split_stay_plain() -> None:
    assert captioned("solo  flute", split="regularization").texts == ("solo flute",)


def test_captions_for_regularization_have_an_anchor_of_their_own() -> None:
    own = {"regularization_anchor": "spectrogram"}
    assert captioned("solo  flute", split="regularization", **own).texts == ("spectrogram, solo flute",)
    assert captioned("a female singer", **own).texts == ("spectrogram, song with vocals",)
    assert captioned("solo flute", **own).texts == ("mel spectrogram, solo flute",)


def test_the_log_leads_back(tmp_path: Path) -> None:
    caption = "“Slow” piano, great for a party"
    write_log(tmp_path / "log.jsonl", [captioned(caption)])
    row = json.loads((tmp_path / "log.jsonl").read_text())
    cleaned = row["after"].removeprefix("mel spectrogram, ")
    assert Edited(cleaned, tuple(Edit(**edit) for edit in row["edits"])).original == row["before"] == caption


@pytest.mark.skipif("SONG_DESCRIBER_CSV" not in os.environ, reason="SONG_DESCRIBER_CSV names no song_describer.csv")
def test_the_song_describer_captions_are_accounted_for() -> None:
    """706 tracks, 1,106 captions: each kept, cleaned or dropped with a reason, and the promises of the issue."""
    captions: dict[str, list[str]] = {}
    artists: dict[str, str] = {}
    with Path(os.environ["SONG_DESCRIBER_CSV"]).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            captions.setdefault(row["track_id"], []).append(row["caption"])
            artists[row["track_id"]] = row["artist_id"]
    tracks = [SourceTrack(name, Path(name), tuple(texts), artist=artists[name]) for name, texts in captions.items()]
    captions_of = [caption_track(track, Captioning(ANCHOR), ESTIMATE) for track in tracks]
    assert len(tracks) == 706
    assert sum(fates(captions_of).values()) == 1106
    for track, made in zip(tracks, captions_of):
        assert [caption.before for caption in made.captions if caption.before] == list(track.captions)
        if not made.decision.vocal:
            assert all(text == ANCHOR or text.startswith(f"{ANCHOR}, ") for text in made.texts)
            assert all(ESTIMATE.count(text) <= MAX_TOKENS for text in made.texts)
            assert not any(VOICE.search(text) for text in made.texts)
    candidates = [
        Candidate(track.identifier, track.artist, made.decision.vocal, instruments_of(track))
        for track, made in zip(tracks, captions_of)
    ]
    places = assign(candidates, validation=0.05, test=0.1, held_out=(), vocals="regularization", seed=0)
    for artist in set(artists.values()):
        splits = {places[name].split for name in captions if artists[name] == artist} - {""}
        assert splits == {"train", "regularization"} or len(splits) <= 1
    regularized = [track for track in tracks if places[track.identifier].split == "regularization"]
    trained = {artists[name] for name, place in places.items() if place.split == "train"}
    assert sum(track.artist in trained for track in regularized) == 183
