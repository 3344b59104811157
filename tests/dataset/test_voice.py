"""musicnn hears a choir, and no voice in a violin."""

from dataclasses import replace

import pytest

pytest.importorskip("midirenderer")

from sdxl_mel.corpus import tracks
from sdxl_mel.dataset.voice import NO_VOICE_TAGS, VOICE_TAGS, tagger, voice_probability

CHOIR_AAHS = 52


def test_the_tags_are_musicnns() -> None:
    assert set(tagger().labels) >= VOICE_TAGS | NO_VOICE_TAGS


def test_a_choir_is_a_voice_and_an_instrument_is_none(monkeypatch) -> None:
    (plan,) = tracks.plan_tracks("train", 1, seconds=6, solo_share=1.0)
    name = plan.instruments[0]
    played = tracks.render_track(plan)
    monkeypatch.setitem(tracks.INSTRUMENTS, name, replace(tracks.INSTRUMENTS[name], program=CHOIR_AAHS))
    sung = tracks.render_track(plan)
    assert voice_probability(*played) < 0.4
    assert voice_probability(*sung) > 0.8
