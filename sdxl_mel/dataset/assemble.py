"""From rendered tracks to a dataset: which clips are in it, and every picture in the folder of its split."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdxl_mel.captions.lexicon import instruments_in
from sdxl_mel.config import Skipped
from sdxl_mel.dataset.captioning import TrackCaptions
from sdxl_mel.dataset.render import (
    JOURNAL_NAME,
    OFFSETS_NAME,
    STAGING_NAME,
    WORK_NAME,
    Clip,
    Rendered,
    is_offset_name,
    picture_places,
)
from sdxl_mel.dataset.splits import Assignment
from sdxl_mel.dataset.tracks import SourceTrack
from sdxl_mel.files.atomic import clear_os_errors
from sdxl_mel.files.dataset import ROWS_NAME, SPLITS, Item
from sdxl_mel.sound.fingerprint import similar_pairs


@dataclass(frozen=True)
class PreparedTrack:
    """A track with all that was found out about it."""

    track: SourceTrack
    captions: TrackCaptions
    rendered: Rendered | None


GoodClip = tuple[PreparedTrack, Clip]


@dataclass
class Sifted:
    """The good clips in source order, what was skipped, what was rejected by rule."""

    clips: list[GoodClip] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    rejected: list[Skipped] = field(default_factory=list)


def sift(tracks: Sequence[PreparedTrack], assigned: Mapping[str, Assignment], similar: float) -> Sifted:
    """Return what is good of the tracks that have a split; of those that are the same the first stays."""
    sifted = Sifted()
    usable: list[PreparedTrack] = []
    first_with: dict[str, str] = {}
    for prepared in tracks:
        reason = _unusable(prepared, assigned[prepared.track.identifier], first_with)
        if prepared.rendered is not None and prepared.rendered.unreadable:
            sifted.skipped.append(Skipped(what=prepared.track.identifier, why=prepared.rendered.unreadable))
        elif reason:
            sifted.rejected.append(Skipped(what=prepared.track.identifier, why=reason))
        else:
            usable.append(prepared)
    clips = [(prepared, clip) for prepared in usable if prepared.rendered for clip in prepared.rendered.clips]
    copies = _near_duplicates(clips, similar)
    for prepared in usable:
        for offset, reason in prepared.rendered.rejects if prepared.rendered else ():
            sifted.rejected.append(Skipped(what=_at(prepared, offset), why=reason))
    for index, (prepared, clip) in enumerate(clips):
        if index in copies:
            sifted.rejected.append(Skipped(what=_at(prepared, clip.offset), why=copies[index]))
        else:
            sifted.clips.append((prepared, clip))
    return sifted


def dealt(clips: Sequence[GoodClip], assigned: Mapping[str, Assignment]) -> dict[str, list[Item]]:
    """Return the items of every split that has any, in source order."""
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for prepared, clip in clips:
        assignment = assigned[prepared.track.identifier]
        if assignment.split:
            splits[assignment.split].append(_item(prepared, clip, assignment))
    return {split: items for split, items in splits.items() if items}


def place_pictures(out: Path, splits: Mapping[str, list[Item]]) -> None:
    """Move every picture to where its item says it is. Raises ResourceError when the folder cannot be written."""
    with clear_os_errors(out):
        for items in splits.values():
            for name in (name for item in items for name in item.offset_files):
                target = out / name
                if not target.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    found = next(path for path in picture_places(out, target.name) if path.is_file())
                    found.replace(target)


def remove_stale(out: Path, splits: Mapping[str, list[Item]], keys: Iterable[str], names: Iterable[str]) -> None:
    """Remove pictures, journal entries and unfinished writes that no longer belong to the dataset.

    `keys` and `names` are the journal entries in use and the pictures they vouch for.
    """
    placed = {out / name for items in splits.values() for item in items for name in item.offset_files}
    staging = out / WORK_NAME / STAGING_NAME
    wanted = placed | {staging / name for name in names if (staging / name) not in placed}
    wanted |= {out / WORK_NAME / JOURNAL_NAME / f"{key}.json" for key in keys}
    wanted |= {out / split / ROWS_NAME for split in splits}
    folders = [staging, out / WORK_NAME / JOURNAL_NAME]
    folders += [folder for split in SPLITS for folder in (out / split / OFFSETS_NAME, out / split)]
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_file() and path not in wanted:
                path.unlink()
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    for path in out.glob(".*.tmp"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _unusable(prepared: PreparedTrack, assigned: Assignment, first_with: dict[str, str]) -> str:
    """Return why a track is left out by rule, and remember its bytes if it is not."""
    if not assigned.split:
        return assigned.left_out
    if prepared.rendered is None or prepared.rendered.unreadable:
        return ""
    if prepared.rendered.unusable:
        return prepared.rendered.unusable
    if not prepared.captions.texts:
        return "no caption is left, and there is no anchor"
    other = first_with.setdefault(prepared.rendered.sha256, prepared.track.identifier)
    return "" if other == prepared.track.identifier else f"the same bytes as {other}"


def _near_duplicates(clips: Sequence[GoodClip], similar: float) -> dict[int, str]:
    """Return {index of a clip: which earlier clip it repeats}."""
    prints = [bytes.fromhex(clip.fingerprint) for _, clip in clips]
    return {
        later: f"near-duplicate of {_at(clips[earlier][0], clips[earlier][1].offset)} ({share:.0%} alike)"
        for earlier, later, share in similar_pairs(prints, similar)
    }


def _item(prepared: PreparedTrack, clip: Clip, assigned: Assignment) -> Item:
    assert prepared.rendered is not None
    names = tuple(f"{assigned.split}/{OFFSETS_NAME + '/' if is_offset_name(name) else ''}{name}" for name in clip.names)
    track = prepared.track
    return Item(
        file=names[0],
        captions=prepared.captions.texts,
        track=track.identifier,
        artist=track.artist,
        offset=clip.offset,
        licence=track.licence,
        sha256=prepared.rendered.sha256,
        instruments=instruments_of(track),
        group=assigned.group,
        loudness_lufs=clip.loudness_lufs,
        offset_files=names,
    )


def instruments_of(track: SourceTrack) -> tuple[str, ...]:
    """Return the instruments that the source states, else those that its captions and tags name."""
    return track.instruments or instruments_in((*track.captions, *track.tags))


def _at(prepared: PreparedTrack, offset: float) -> str:
    return f"{prepared.track.identifier} at {offset:.1f} s"
