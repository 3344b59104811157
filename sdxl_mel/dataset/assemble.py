"""From rendered tracks to a dataset: which clips are in it, and every picture in the folder of its split."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdxl_mel.captions.lexicon import instruments_in
from sdxl_mel.config import Skipped
from sdxl_mel.dataset.captioning import Wording
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
from sdxl_mel.dataset.splits import Place
from sdxl_mel.dataset.tracks import SourceTrack
from sdxl_mel.files.atomic import clear_os_errors
from sdxl_mel.files.dataset import ROWS_NAME, SPLITS, Item
from sdxl_mel.sound.fingerprint import similar_pairs


@dataclass
class Assembly:
    """The items of every split in source order, what was skipped, what was rejected by rule."""

    splits: dict[str, list[Item]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    skipped: list[Skipped] = field(default_factory=list)
    rejected: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """A track with all that was found out about it."""

    track: SourceTrack
    wording: Wording
    place: Place
    rendered: Rendered | None


def assemble(parts: Sequence[Part], similar: float) -> Assembly:
    """Return the dataset's items; of tracks and clips that are the same, the first in source order stays."""
    assembly = Assembly()
    usable: list[Part] = []
    first_with: dict[str, str] = {}
    for part in parts:
        reason = _unusable(part, first_with)
        if part.rendered is not None and part.rendered.unreadable:
            assembly.skipped.append(Skipped(what=part.track.identifier, why=part.rendered.unreadable))
        elif reason:
            assembly.rejected.append(Skipped(what=part.track.identifier, why=reason))
        else:
            usable.append(part)
    clips = [(part, clip) for part in usable if part.rendered for clip in part.rendered.clips]
    copies = _near_duplicates(clips, similar)
    for part in usable:
        for offset, reason in part.rendered.rejects if part.rendered else ():
            assembly.rejected.append(Skipped(what=_at(part, offset), why=reason))
    for index, (part, clip) in enumerate(clips):
        if index in copies:
            assembly.rejected.append(Skipped(what=_at(part, clip.offset), why=copies[index]))
        else:
            assembly.splits[part.place.split].append(_item(part, clip))
    assembly.splits = {split: items for split, items in assembly.splits.items() if items}
    return assembly


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


def _unusable(part: Part, first_with: dict[str, str]) -> str:
    """Return why a track is left out by rule, and remember its bytes if it is not."""
    if not part.place.split:
        return part.place.left_out
    if part.rendered is None or part.rendered.unreadable:
        return ""
    if part.rendered.unusable:
        return part.rendered.unusable
    if not part.wording.texts:
        return "no caption is left, and there is no anchor"
    other = first_with.setdefault(part.rendered.sha256, part.track.identifier)
    return "" if other == part.track.identifier else f"the same bytes as {other}"


def _near_duplicates(clips: Sequence[tuple[Part, Clip]], similar: float) -> dict[int, str]:
    """Return {index of a clip: which earlier clip it repeats}."""
    prints = [bytes.fromhex(clip.fingerprint) for _, clip in clips]
    return {
        later: f"near-duplicate of {_at(clips[earlier][0], clips[earlier][1].offset)} ({share:.0%} alike)"
        for earlier, later, share in similar_pairs(prints, similar)
    }


def _item(part: Part, clip: Clip) -> Item:
    assert part.rendered is not None
    split = part.place.split
    names = tuple(f"{split}/{OFFSETS_NAME + '/' if is_offset_name(name) else ''}{name}" for name in clip.names)
    track = part.track
    return Item(
        file=names[0],
        captions=part.wording.texts,
        track=track.identifier,
        artist=track.artist,
        offset=clip.offset,
        licence=track.licence,
        sha256=part.rendered.sha256,
        instruments=instruments_of(track),
        group=part.place.group,
        loudness_lufs=clip.loudness_lufs,
        offset_files=names,
    )


def instruments_of(track: SourceTrack) -> tuple[str, ...]:
    """Return the instruments that the source states, else those that its captions and tags name."""
    return track.instruments or instruments_in((*track.captions, *track.tags))


def _at(part: Part, offset: float) -> str:
    return f"{part.track.identifier} at {offset:.1f} s"
