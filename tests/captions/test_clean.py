"""Cleaning: what goes, what stays, and that it can be taken back; measured on captions labelled by hand."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_mel.captions.clean import clean
from sdxl_mel.captions.edits import Edited
from sdxl_mel.captions.lexicon import instruments_in
from sdxl_mel.captions.vocals import decide, mentions_voice

LABELS = json.loads((Path(__file__).parent.parent / "fixtures" / "song_describer_60.json").read_text(encoding="utf-8"))
AIM = 0.95

FRAGMENTS = st.sampled_from(
    [
        "calm piano",
        " that makes you want to dance",
        ", perfect for a party",
        " with heavy drums",
        "\n",
        "“Ünï”",
        ". ",
        ", ",
    ]
    + [
        "I love it",
        " without vocals",
        " sung in French",
        " https://x.org/a",
        " inspired by Bach",
        "\u200b",
        " ",
        "...",
        "80s",
    ]
)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=80), st.lists(FRAGMENTS, max_size=8).map("".join)), st.booleans())
def test_every_cleaning_can_be_taken_back_and_done_twice(caption: str, instrumental: bool) -> None:
    cleaned = clean(caption, instrumental=instrumental)
    assert cleaned.original == caption
    assert clean(caption, instrumental=instrumental) == cleaned
    assert not re.search(r"[\n\r\u200b“”]|\s\s", cleaned.text)
    if instrumental:
        assert not mentions_voice(cleaned.text)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("“Calm” ‘piano’ – soft", "Calm 'piano' – soft"),
        ("Listen at https://x.org/a?b now, slow guitar (www.x.com)", "Listen at now, slow guitar"),
        ("Soft piano\n\nslow\r\nstrings.", "Soft piano, slow, strings."),
        ("ﬁne ｆlute", "fine flute"),
        ("Calm guitar, perfect for a rainy evening, with soft strings.", "Calm guitar, with soft strings."),
        ("It could be used in a film. Slow strings.", "Slow strings."),
        ("This song is perfect for a night drive", ""),
        ("Techno with drums and is suitable for parties and yoga", "Techno with drums"),
        ("A funk groove that makes you want to dance, with a fat bass", "A funk groove, with a fat bass"),
        ("I like this slow waltz. Harp solo.", "Harp solo."),
        ("This song fits in jazz, reminding of the 60s", "This song fits in jazz, reminding of the 60s"),
        ("A waltz in the style of Johann Strauss and such", "A waltz"),
        ("Spanish guitar similar to Latin jazz", "Spanish guitar similar to Latin jazz"),
        ("Calm piano without vocals, no lyrics", "Calm piano"),
        ("A non-vocal, slow tune", "A, slow tune"),
        ("Slow strings, a choir of men, flute", "Slow strings, flute"),
        ("The vocal-like synth over Tibetan singing bowls", "The synth over Tibetan bowls"),
        ("", ""),
        ("!!! ...", ""),
    ],
)
def test_what_cleaning_does(caption: str, expected: str) -> None:
    assert clean(caption).text == expected


def test_artist_names_go_where_they_are_known() -> None:
    assert clean("Slow waltz by The Foo Bars, with harp", names=("The Foo Bars",)).text == "Slow waltz, with harp"
    assert clean("A bark of a dog", names=("Ba",)).text == "A bark of a dog"


def test_vocal_words_stay_where_voices_do() -> None:
    caption = "A ballad with a female voice, perfect for a rainy day"
    assert clean(caption, instrumental=False).text == "A ballad with a female voice"


@pytest.mark.parametrize(
    ("texts", "vocal"),
    [
        (("A piano piece", "male vocals over piano"), True),
        (("no vocals", "without any singing"), False),
        (("no lyrics, but a choir"), True),
        (("Rap song",), True),
        (("Ominous beat and non-english rapping",), True),
        (("cheerful song in Spanish",), True),
        (("guitar from Latin America",), False),
        (("two guitars in conversation with each other",), False),
        (("a lyrical violin melody", "a screaming guitar"), False),
        (("a humming in the background",), True),
        (("an instrumental with a humming bass",), False),
        (("music that makes one sing while driving",), False),
        (("instrument---voice",), True),
        (("instrument---violin", "vocal-like synth"), False),
        ((), False),
    ],
)
def test_a_voice_anywhere_makes_the_track_vocal(texts: tuple[str, ...] | str, vocal: bool) -> None:
    assert decide((texts,) if isinstance(texts, str) else texts).vocal is vocal


def test_an_embedder_is_heard_only_where_words_are_silent() -> None:
    assert decide(("calm piano",), score=0.9).evidence == ("voice heard with probability 0.90",)
    assert not decide(("an instrumental",), score=0.9).vocal
    assert decide(("male voice",), score=0.0).evidence == ("male", "voice")


def test_the_vocal_decision_on_hand_labelled_captions(record_property) -> None:
    decisions = [(decide((row["caption"], *row["others"])).vocal, row["vocal"]) for row in LABELS["captions"]]
    precision, recall = precision_and_recall(
        sum(found and true for found, true in decisions),
        sum(found for found, _ in decisions),
        sum(true for _, true in decisions),
    )
    record_property("vocal decision", (precision, recall))
    print(f"vocal decision, 60 captions: precision {precision:.3f}, recall {recall:.3f}")
    assert precision > AIM
    assert recall > AIM


def test_the_removal_of_tails_on_hand_labelled_captions(record_property) -> None:
    removed, wanted, both, exact = Counter(), Counter(), Counter(), 0
    for number, row in enumerate(LABELS["captions"]):
        text = clean(row["caption"], instrumental=not row["vocal"]).text
        gone, due = lost_words(row["caption"], text), lost_words(row["caption"], row["expected"])
        removed[number], wanted[number], both[number] = gone.total(), due.total(), (gone & due).total()
        exact += text == row["expected"]
    precision, recall = precision_and_recall(both.total(), removed.total(), wanted.total())
    record_property("tail removal", (precision, recall))
    print(f"tail removal, words: precision {precision:.3f}, recall {recall:.3f}; {exact} of 60 captions to the letter")
    assert precision > AIM
    assert recall > AIM


def test_the_measures_fail_on_wrong_answers() -> None:
    assert precision_and_recall(1, 2, 4) == (0.5, 0.25)
    assert lost_words("a b b c", "b c") == Counter({"a": 1, "b": 1})


def test_instruments_are_found_under_their_other_names() -> None:
    assert instruments_in(("distorted guitars and a fiddle", "genre---jazz", "instrument---rhodes")) == (
        "electric guitar",
        "electric piano",
        "violin",
    )
    assert instruments_in(("a pianist's heart of brasserie",)) == ()


def test_edits_are_logged_in_order() -> None:
    edited = Edited("aXbXc").sub("x", re.compile("X"), "").splice("y", 0, 1, "zz")
    assert edited.text == "zzbc"
    assert [(edit.rule, edit.before, edit.after) for edit in edited.edits] == [
        ("x", "X", ""),
        ("x", "X", ""),
        ("y", "a", "zz"),
    ]
    assert edited.original == "aXbXc"


def precision_and_recall(both: int, found: int, true: int) -> tuple[float, float]:
    return both / found, both / true


def lost_words(before: str, after: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", before.lower())) - Counter(re.findall(r"\w+", after.lower()))


@pytest.mark.parametrize("space", ["\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\u00a0", "\x1f"])
def test_no_kind_of_space_glues_words(space: str) -> None:
    assert clean(f"slow{space}piano").text == "slow piano"
