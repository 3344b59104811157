"""Edits by hand: tracks with another caption, in another split, or left out, as `overrides.json` says."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sdxl_mel.captions.anchor import anchored
from sdxl_mel.captions.tokens import TokenCounter
from sdxl_mel.config import Skipped
from sdxl_mel.dataset.captioning import Caption, TrackCaptions
from sdxl_mel.dataset.splits import Assignment
from sdxl_mel.dataset.tracks import SourceTrack
from sdxl_mel.files.overrides import Override

REASON = "edited by hand"


def unknown_tracks(edits: Mapping[str, Override], tracks: Iterable[SourceTrack]) -> list[Skipped]:
    """Return the edits of tracks that the source does not have, which change nothing."""
    known = {track.identifier for track in tracks}
    return [Skipped(what=name, why="edited by hand, and not in the source") for name in edits if name not in known]


def in_stated_splits(tracks: Sequence[SourceTrack], edits: Mapping[str, Override]) -> list[SourceTrack]:
    """Return tracks in the splits that are stated by hand, all tracks of an artist with the one that was moved.

    So no artist is in two of the splits between which that would give something away.
    """
    moved = {track.identifier: split for track in tracks if (split := _split(edits, track.identifier))}
    artists = {track.artist: moved[track.identifier] for track in tracks if track.identifier in moved and track.artist}
    return [
        replace(track, split=moved.get(track.identifier) or artists.get(track.artist) or track.split)
        for track in tracks
    ]


def with_stated_caption(
    captions: TrackCaptions, edits: Mapping[str, Override], anchor: str, counter: TokenCounter
) -> TrackCaptions:
    """Return the captions of a track: the one stated by hand, with the anchor and as it is, in place of all others."""
    stated = edits.get(captions.track, Override()).caption
    if stated is None:
        return captions
    fitted = anchored(stated, anchor, counter)
    why = f"too long: without {fitted.dropped!r}" if fitted.dropped else REASON
    dropped = [replace(each, after="", fate="dropped", why=REASON) for each in captions.captions if each.before]
    return replace(captions, captions=(*dropped, Caption("", fitted.text, "kept", why)))


def with_exclusions(assigned: Mapping[str, Assignment], edits: Mapping[str, Override]) -> dict[str, Assignment]:
    """Return the splits of all tracks, none for those that are left out by hand."""
    reasons = {name: edit.exclude for name, edit in edits.items() if edit.exclude}
    return {
        name: Assignment("", left_out=f"left out by hand: {reasons[name]}") if name in reasons else each
        for name, each in assigned.items()
    }


def _split(edits: Mapping[str, Override], track: str) -> str | None:
    return edits.get(track, Override()).split
