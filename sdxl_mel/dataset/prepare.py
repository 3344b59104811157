"""A folder of music and captions, a table, or the demo corpus -> a training set to trust."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from sdxl_mel.captions.tokens import TokenCounter, token_counter
from sdxl_mel.config import Skipped
from sdxl_mel.dataset.assemble import PreparedTrack, dealt, instruments_of, place_pictures, remove_stale, sift
from sdxl_mel.dataset.by_hand import in_stated_splits, unknown_tracks, with_exclusions, with_stated_caption
from sdxl_mel.dataset.captioning import TrackCaptions, caption_track, fates, write_log
from sdxl_mel.dataset.clips import needed_seconds, stride_of
from sdxl_mel.dataset.kohya import remove_kohya, write_kohya
from sdxl_mel.dataset.page import write_report
from sdxl_mel.dataset.render import WORK_NAME, Rendered, RenderJob, render
from sdxl_mel.dataset.settings import Captioning, Cutting, DemoSource, FileSource, RejectSettings, Splitting
from sdxl_mel.dataset.sources import demo_tracks, find_tracks
from sdxl_mel.dataset.splits import Assignment, Candidate, assign, choose_pairs
from sdxl_mel.dataset.tracks import SourceList, SourceTrack
from sdxl_mel.dataset.voice import tagger
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.execution import map_jobs
from sdxl_mel.files.atomic import write_text
from sdxl_mel.files.dataset import HEADER_NAME, Dataset, Item, is_dataset, write_dataset
from sdxl_mel.files.overrides import NAME as OVERRIDES_NAME
from sdxl_mel.files.overrides import Override, Overrides, read_overrides
from sdxl_mel.files.writer import only_writer
from sdxl_mel.progress import log, progress
from sdxl_mel.record import Record, sha256_bytes
from sdxl_mel.sound.melspec import MelSpec, require_equal

SPEC_NAME = "spec.json"
CAPTIONS_NAME = "captions.jsonl"
REPORT_NAME = "report.html"
FEW_TRACKS = 10
DEMO_CLIPS = 2
"""Clips that a track of the demo has room for."""
CAPTIONING, CUTTING, REJECT, SPLITTING = Captioning(), Cutting(), RejectSettings(), Splitting()
"""The defaults."""


@dataclass(frozen=True)
class Prepared:
    """The dataset, and how many of the source's captions were kept, cleaned or dropped."""

    dataset: Dataset
    fates: Mapping[str, int]


def prepare(
    source: FileSource | DemoSource,
    out: Path,
    spec: MelSpec,
    *,
    captioning: Captioning = CAPTIONING,
    cutting: Cutting = CUTTING,
    reject: RejectSettings = REJECT,
    splitting: Splitting = SPLITTING,
    base: str | None = None,
    listen: bool = False,
    kohya_repeats: int | None = None,
    workers: int = 1,
    overrides: Path | None = None,
    settings: Mapping[str, JsonValue] | None = None,
) -> Prepared:
    """Prepare a dataset in `out`, or continue or update one.

    `base` is the base whose tokenizer counts the captions' tokens (None: an estimate); with `listen` musicnn decides on
    voices where captions and tags do not; `kohya_repeats` adds the folders of kohya's sd-scripts; `overrides` is a file
    of edits by hand (None: the one in `out`, if there is one); `settings` is what the dataset's record says of how it
    was made.

    Raises InputError for a source or a folder that cannot be used, MismatchError where `out` is of another spec,
    FormatError where no clip is left, ResourceError for a full disk.
    """
    stride = stride_of(cutting, spec)
    _require_ours(out, spec, source)
    with only_writer(out):
        counter = token_counter(base)
        if isinstance(source, DemoSource):
            seconds = needed_seconds(spec, cutting) + (DEMO_CLIPS - 1) * stride * spec.hop_length / spec.sample_rate
            found = demo_tracks(source, seconds)
        else:
            found = _tracks_in(source, out)
        write_text(out / WORK_NAME / SPEC_NAME, spec.to_json() + "\n")
        edits = read_overrides(overrides or out / OVERRIDES_NAME).tracks
        found.skipped += unknown_tracks(edits, found.tracks)
        found.tracks = in_stated_splits(found.tracks, edits)
        captions = [caption_track(track, captioning, counter) for track in found.tracks]
        assigned = with_exclusions(_assigned(found.tracks, captions, splitting, captioning.vocals), edits)
        jobs = [
            RenderJob(track.identifier, track.audio, out, spec, cutting, reject, listen)
            for track in found.tracks
            if assigned[track.identifier].split
        ]
        rendered = _rendered(jobs, workers)
        if listen:
            voices = {name: track.voice for name, track in rendered.items()}
            captions = [caption_track(each, captioning, counter, voices.get(each.identifier)) for each in found.tracks]
            assigned = with_exclusions(_assigned(found.tracks, captions, splitting, captioning.vocals), edits)
        anchors = {
            name: captioning.regularization_anchor if each.split == "regularization" else captioning.anchor
            for name, each in assigned.items()
        }
        captions = [with_stated_caption(each, edits, anchors[each.track], counter) for each in captions]
        tracks = [
            PreparedTrack(track, texts, rendered.get(track.identifier)) for track, texts in zip(found.tracks, captions)
        ]
        sifted = sift(tracks, assigned, reject.duplicate_similarity)
        good = {prepared.track.identifier for prepared, _ in sifted.clips}
        # Again among the tracks that have a clip, so that none of the splits is left with unusable tracks alone.
        again = with_exclusions(_assigned(found.tracks, captions, splitting, captioning.vocals, good), edits)
        splits = dealt(sifted.clips, again)
        sifted.rejected += [Skipped(what=name, why=each.left_out) for name, each in again.items() if not each.split]
        if not splits:
            raise FormatError(f"no clip is left: {_first_reasons([*found.skipped, *sifted.skipped, *sifted.rejected])}")
        dataset = Dataset(
            spec,
            captioning.anchor,
            splits,
            _record(settings or {}, tracks, edits),
            (*found.skipped, *sifted.skipped),
            tuple(sifted.rejected),
            (*found.notes, *_notes_on_size(splits)),
            out,
        )
        _write(
            dataset, tracks, captioning=captioning, kohya_repeats=kohya_repeats, counter=counter, seed=splitting.seed
        )
        return Prepared(dataset, fates(captions))


def _require_ours(out: Path, spec: MelSpec, source: FileSource | DemoSource) -> None:
    """Raise InputError or MismatchError unless the output folder is new, or ours and of this spec."""
    work = out / WORK_NAME
    if isinstance(source, FileSource) and source.place.exists():
        music = source.place.resolve()
        if out.resolve() == music or out.resolve() in music.parents:
            raise InputError(f"{out}: the output folder is, or holds, the source; choose another --out")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file; --out is a folder")
    if out.is_dir() and any(out.iterdir()) and not (is_dataset(out) or work.is_dir()):
        raise InputError(f"{out}: not empty, and not a dataset of ours; choose another --out")
    known = work / SPEC_NAME
    if known.is_file():
        require_equal(MelSpec.from_json(known.read_bytes(), str(known)), spec, str(out), "the --preset asked for")


def _tracks_in(source: FileSource, out: Path) -> SourceList:
    found = find_tracks(source, out)
    for note in found.notes:
        log(note)
    if not found.tracks:
        raise InputError(f"{source.place}: no track to prepare: {_first_reasons(found.skipped)}")
    return found


def _assigned(
    tracks: Sequence[SourceTrack],
    captions: Sequence[TrackCaptions],
    splitting: Splitting,
    vocals: str,
    among: Collection[str] | None = None,
) -> dict[str, Assignment]:
    """Return the split of every track, or of those `among` all; the pairs held out are chosen among all."""
    candidates = [
        Candidate(track.identifier, track.artist, texts.decision.vocal, instruments_of(track), track.split, track.group)
        for track, texts in zip(tracks, captions)
    ]
    instrumental = [candidate for candidate in candidates if not candidate.vocal]
    return assign(
        [candidate for candidate in candidates if among is None or candidate.track in among],
        validation=splitting.validation,
        test=splitting.test,
        held_out=choose_pairs(instrumental, splitting.held_out, splitting.seed),
        vocals=vocals,
        seed=splitting.seed,
    )


def _notes_on_size(splits: Mapping[str, Sequence[Item]]) -> list[str]:
    """Return what a person should know of a set that is too small, or has nothing to train on."""
    count = len({item.track for item in splits.get("train", ())})
    if not count:
        return [f"no clip to train on: all are in {' and '.join(splits)}"]
    if count >= FEW_TRACKS:
        return []
    absent = [split for split in ("validation", "test") if split not in splits]
    missing = f", and none for {' and '.join(absent)}" if absent else ""
    return [f"a small set: {count} tracks to train on{missing}; a LoRA learns so few by heart"]


def _rendered(jobs: Sequence[RenderJob], workers: int) -> dict[str, Rendered]:
    """Render tracks; returns what became of each by its name."""
    if any(job.listen for job in jobs):
        tagger()  # Where musicnn is missing, say so before any work.
    rendered: dict[str, Rendered] = {}
    seconds, start = 0.0, time.monotonic()
    workers = min(workers, len(jobs))
    results = map_jobs(render, jobs, backend="processes" if workers > 1 else "here", workers=workers)
    with progress(len(jobs), "prepare", "tracks") as ticker:
        for result in results:
            rendered[result.track] = result
            seconds += result.seconds
            ticker.advance(note=f"{seconds / max(time.monotonic() - start, 1e-9):.0f}x real time")
    return rendered


def _write(
    dataset: Dataset,
    tracks: Sequence[PreparedTrack],
    *,
    captioning: Captioning,
    kohya_repeats: int | None,
    counter: TokenCounter,
    seed: int,
) -> None:
    """Put everything in its place; the header goes first and comes last, so that it vouches for all that lies there."""
    out, captions = dataset.folder, [each.captions for each in tracks]
    (out / HEADER_NAME).unlink(missing_ok=True)
    place_pictures(out, dataset.splits)
    rendered = [each.rendered for each in tracks if each.rendered is not None]
    names = [name for entry in rendered for clip in entry.clips for name in clip.names]
    write_log(out / CAPTIONS_NAME, captions)
    if kohya_repeats is None:
        remove_kohya(out)
    else:
        write_kohya(out, dataset.splits, dataset.anchor, captioning.class_caption, kohya_repeats)
    sources = {each.track.identifier: each.track for each in tracks}
    write_report(out / REPORT_NAME, dataset, captions, sources, counter=counter.name, seed=seed)
    remove_stale(out, dataset.splits, [entry.key for entry in rendered], names)
    write_dataset(out, dataset)


def _record(
    settings: Mapping[str, JsonValue], tracks: Sequence[PreparedTrack], edits: Mapping[str, Override]
) -> Record:
    lines = (f"{each.track.identifier} {each.rendered.sha256}\n" for each in tracks if each.rendered is not None)
    inputs = {"tracks": sha256_bytes("".join(lines).encode())}
    if edits:
        inputs["overrides"] = sha256_bytes(Overrides(tracks=dict(sorted(edits.items()))).model_dump_json().encode())
    return Record(stage="prepare", settings=dict(settings), inputs=inputs)


def _first_reasons(entries: Sequence[Skipped]) -> str:
    shown = "; ".join(f"{entry.what}: {entry.why}" for entry in entries[:3])
    return (shown + (f"; and {len(entries) - 3} more" if len(entries) > 3 else "")) or "no audio files were found"
