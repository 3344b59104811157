"""The stage `prepare`: a folder of music and captions, a table, or the demo corpus -> a training set to trust."""

import os
import time
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from sdxl_mel.captions.tokens import TokenCounter, token_counter
from sdxl_mel.config import Skipped
from sdxl_mel.dataset.assemble import Part, assemble, instruments_of, place_pictures, remove_stale
from sdxl_mel.dataset.captioning import Wording, fates, word, write_log
from sdxl_mel.dataset.clips import CutSettings, needed_seconds
from sdxl_mel.dataset.demo_source import demo_source
from sdxl_mel.dataset.kohya import remove_kohya, write_kohya
from sdxl_mel.dataset.page import write_report
from sdxl_mel.dataset.pool import render_all
from sdxl_mel.dataset.render import WORK_NAME, Job, Rendered
from sdxl_mel.dataset.settings import Config, Report
from sdxl_mel.dataset.sources import find_tracks
from sdxl_mel.dataset.splits import Candidate, Place, assign, choose_pairs
from sdxl_mel.dataset.tracks import SourceList, SourceTrack
from sdxl_mel.dataset.voice import tagger
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.atomic import write_text
from sdxl_mel.files.dataset import HEADER_NAME, Dataset, is_dataset, write_dataset
from sdxl_mel.progress import log, progress
from sdxl_mel.record import Record, sha256_bytes
from sdxl_mel.sound.melspec import MelSpec, named_spec, require_equal

__all__ = ["EXAMPLES", "Config", "Report", "run"]

EXAMPLES = """\
  sdxl-mel prepare my-music/ --out data/mine
  sdxl-mel prepare songs.csv --out data/songs --columns audio=file caption=description --audio-dir clips/
  sdxl-mel prepare song_describer/ --out data/sdd --hold-out-combinations 5
  sdxl-mel prepare --source demo --tracks 120 --preset mini --out data/demo"""

SPEC_NAME = "spec.json"
CAPTIONS_NAME = "captions.jsonl"
REPORT_NAME = "report.html"
NOT_IN_RECORD = {"music", "out", "jobs", "audio_dir", "tags"}
"""Settings that name a place or a machine, not what was made."""
DEMO_CLIPS = 2
"""Clips that a track of the demo has room for."""


def run(config: Config) -> Report:
    """Prepare a dataset, or continue or update one."""
    spec = named_spec(config.preset)
    cut = _cut_settings(config, spec)
    _require_ours(config, spec)
    counter = token_counter(config.base)
    source = _source(config, spec, cut)
    write_text(config.out / WORK_NAME / SPEC_NAME, spec.to_json() + "\n")
    wordings = _wordings(config, source.tracks, counter, {})
    rendered = _rendered(config, spec, cut, source.tracks, _places(config, source.tracks, wordings))
    if config.listen:
        wordings = _wordings(config, source.tracks, counter, {name: track.voice for name, track in rendered.items()})
    places = _places(config, source.tracks, wordings)
    parts = [
        Part(track, wording, places[track.identifier], rendered.get(track.identifier))
        for track, wording in zip(source.tracks, wordings)
    ]
    assembly = assemble(parts, config.reject.duplicate_similarity)
    if not assembly.splits:
        raise FormatError(
            f"no clip is left: {_first_reasons([*source.skipped, *assembly.skipped, *assembly.rejected])}"
        )
    dataset = Dataset(
        spec,
        config.anchor,
        assembly.splits,
        _record(config, parts),
        (*source.skipped, *assembly.skipped),
        tuple(assembly.rejected),
        tuple(source.notes),
        config.out,
    )
    _write(config, dataset, parts, wordings, counter.name)
    return Report(
        out=config.out,
        counts=dataset.counts,
        rejected=len(dataset.rejected),
        fates=fates(wordings),
        notes=dataset.notes,
        skipped=dataset.skipped,
    )


def _cut_settings(config: Config, spec: MelSpec) -> CutSettings:
    stride = spec.width if config.stride is None else round(config.stride * spec.sample_rate / spec.hop_length)
    if stride < 1:
        raise InputError(f"--stride {config.stride}: under one frame ({spec.hop_length / spec.sample_rate:.3f} s)")
    return CutSettings(stride, config.count, config.skip_seconds, config.offsets)


def _require_ours(config: Config, spec: MelSpec) -> None:
    """Raise InputError or MismatchError unless the output folder is new, or ours and of this spec."""
    out, work = config.out, config.out / WORK_NAME
    if config.music is not None and config.music.exists():
        music = config.music.resolve()
        if out.resolve() == music or out.resolve() in music.parents:
            raise InputError(f"{out}: the output folder is, or holds, the source; choose another --out")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file; --out is a folder")
    ours = is_dataset(out) or work.is_dir()
    if out.is_dir() and any(out.iterdir()) and not ours:
        raise InputError(f"{out}: not empty, and not a dataset of ours; choose another --out")
    known = work / SPEC_NAME
    if known.is_file():
        require_equal(MelSpec.from_json(known.read_bytes(), str(known)), spec, str(out), f"--preset {config.preset}")


def _source(config: Config, spec: MelSpec, cut: CutSettings) -> SourceList:
    if config.music is None:
        seconds = needed_seconds(spec, cut) + (DEMO_CLIPS - 1) * cut.stride * spec.hop_length / spec.sample_rate
        found = demo_source(config.tracks, seconds, config.demo_group, config.seed)
    else:
        found = find_tracks(
            config.music,
            config.source,
            config.out,
            audio_dir=config.audio_dir,
            tags=config.tags,
            columns=config.columns,
            valid_subset=config.valid_subset,
            uncaptioned=config.uncaptioned,
        )
    if not found.tracks:
        raise InputError(f"{config.music}: no track to prepare: {_first_reasons(found.skipped)}")
    for note in found.notes:
        log(note)
    return found


def _wordings(
    config: Config, tracks: Sequence[SourceTrack], counter: TokenCounter, voices: Mapping[str, float | None]
) -> list[Wording]:
    return [
        word(
            track,
            anchor=config.anchor,
            vocals=config.vocals,
            class_caption=config.class_caption,
            counter=counter,
            score=voices.get(track.identifier),
        )
        for track in tracks
    ]


def _places(config: Config, tracks: Sequence[SourceTrack], wordings: Sequence[Wording]) -> dict[str, Place]:
    candidates = [
        Candidate(
            track.identifier, track.artist, wording.decision.vocal, instruments_of(track), track.split, track.group
        )
        for track, wording in zip(tracks, wordings)
    ]
    instrumental = [candidate for candidate in candidates if not candidate.vocal]
    return assign(
        candidates,
        validation=config.validation,
        test=config.test,
        held_out=choose_pairs(instrumental, config.hold_out_combinations, config.seed),
        vocals=config.vocals,
        seed=config.seed,
    )


def _rendered(
    config: Config, spec: MelSpec, cut: CutSettings, tracks: Sequence[SourceTrack], places: Mapping[str, Place]
) -> dict[str, Rendered]:
    """Render every track that has a place."""
    jobs = [
        Job(track.identifier, track.audio, config.out, spec, cut, config.reject, config.listen)
        for track in tracks
        if places[track.identifier].split
    ]
    if config.listen:
        tagger()  # Where musicnn is missing, say so before any work.
    rendered: dict[str, Rendered] = {}
    seconds, start = 0.0, time.monotonic()
    with progress(len(jobs), "prepare", "tracks") as ticker:
        for result in render_all(jobs, config.jobs or os.cpu_count() or 1):
            rendered[result.track] = result
            seconds += result.seconds
            ticker.advance(note=f"{seconds / max(time.monotonic() - start, 1e-9):.0f}x real time")
    return rendered


def _write(config: Config, dataset: Dataset, parts: Sequence[Part], wordings: Sequence[Wording], counter: str) -> None:
    """Put everything in its place; the header goes first and comes last, so that it vouches for all that lies there."""
    out = config.out
    (out / HEADER_NAME).unlink(missing_ok=True)
    place_pictures(out, dataset.splits)
    rendered = [part.rendered for part in parts if part.rendered is not None]
    names = [name for entry in rendered for clip in entry.clips for name in clip.names]
    write_log(out / CAPTIONS_NAME, wordings)
    if config.layout == "kohya":
        write_kohya(out, dataset.splits, config.anchor, config.class_caption, config.kohya_repeats)
    else:
        remove_kohya(out)
    tracks = {part.track.identifier: part.track for part in parts}
    write_report(out / REPORT_NAME, dataset, wordings, tracks, counter=counter, seed=config.seed)
    remove_stale(out, dataset.splits, [entry.key for entry in rendered], names)
    write_dataset(out, dataset)


def _record(config: Config, parts: Sequence[Part]) -> Record:
    settings: dict[str, JsonValue] = config.model_dump(mode="json", exclude=NOT_IN_RECORD)
    lines = (f"{part.track.identifier} {part.rendered.sha256}\n" for part in parts if part.rendered is not None)
    return Record(stage="prepare", settings=settings, inputs={"tracks": sha256_bytes("".join(lines).encode())})


def _first_reasons(entries: Sequence[Skipped]) -> str:
    shown = "; ".join(f"{entry.what}: {entry.why}" for entry in entries[:3])
    return (shown + (f"; and {len(entries) - 3} more" if len(entries) > 3 else "")) or "no audio files were found"
