"""One track to tiles: decode, bring to the spec, cut, judge, encode, write; then a journal entry that vouches for all.

A journal entry is keyed by the track, its audio and every setting that its pixels depend on, so an interrupted or
repeated run finds what is done and renders just the rest.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from sdxl_mel.arrays import Float
from sdxl_mel.dataset.clips import (
    Window,
    clip_loudness,
    clipped_seconds,
    needed_seconds,
    reject_reason,
    stride_of,
    windows,
)
from sdxl_mel.dataset.decode import opened
from sdxl_mel.dataset.settings import Cutting, RejectSettings
from sdxl_mel.dataset.tracks import AudioPlace
from sdxl_mel.dataset.voice import voice_probability
from sdxl_mel.errors import InputError
from sdxl_mel.files.atomic import write_text
from sdxl_mel.files.dataset import SPLITS
from sdxl_mel.files.header import Frozen
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.record import Record, sha256_bytes
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.fingerprint import fingerprint
from sdxl_mel.sound.mel import margin
from sdxl_mel.sound.melspec import MelSpec

WORK_NAME = ".prepare"
JOURNAL_NAME = "journal"
STAGING_NAME = "clips"
OFFSETS_NAME = "offsets"
RENDER_FORMAT = 1
"""Raised when the same track and settings would make other pixels."""
SLUG_LENGTH = 40


class Clip(Frozen):
    """One rendered clip: its picture's name, those of its time offsets, and what was measured."""

    names: tuple[str, ...]
    offset: float
    loudness_lufs: float
    fingerprint: str


class Rendered(Frozen):
    """What became of one track: its clips and its rejects (offset in seconds, reason), or why there is none."""

    track: str
    key: str
    sha256: str = ""
    seconds: float = 0.0
    clips: tuple[Clip, ...] = ()
    rejects: tuple[tuple[float, str], ...] = ()
    voice: float | None = None
    unusable: str = ""
    unreadable: str = ""


@dataclass(frozen=True)
class RenderJob:
    """All that a worker needs to render one track into `out`."""

    track: str
    audio: AudioPlace
    out: Path
    spec: MelSpec
    cutting: Cutting
    reject: RejectSettings
    listen: bool = False


def render(job: RenderJob) -> Rendered:
    """Render a track, or return what an earlier run has left. Raises ResourceError when the disk is full."""
    try:
        with opened(job.audio) as (sha256, samples):
            key = _key(job, sha256)
            done = _done(job, key)
            if done is not None:
                return done
            rendered = _rendered(job, key, sha256, *samples())
    except InputError as error:
        reason = str(error).split(": ", 1)[-1]  # Without the file's place, which differs between machines.
        return Rendered(track=job.track, key=_key(job, ""), unreadable=reason)
    write_text(journal_path(job.out, key), rendered.model_dump_json() + "\n")
    return rendered


def journal_path(out: Path, key: str) -> Path:
    """Return where the journal entry of a key lies."""
    return out / WORK_NAME / JOURNAL_NAME / f"{key}.json"


def picture_places(out: Path, name: str) -> Iterator[Path]:
    """Yield the places where the picture of a clip may lie: freshly rendered, or in any split."""
    folder = f"{OFFSETS_NAME}/" if is_offset_name(name) else ""
    yield out / WORK_NAME / STAGING_NAME / name
    yield from (out / split / f"{folder}{name}" for split in SPLITS)


def is_offset_name(name: str) -> bool:
    """Say whether a picture's name is that of a time offset."""
    return bool(re.search(r"\.o\d+\.png$", name))


def _rendered(job: RenderJob, key: str, sha256: str, samples: Float, sample_rate: int) -> Rendered:
    seconds = round(samples.shape[-1] / sample_rate, 3)
    voice = voice_probability(samples, sample_rate) if job.listen else None
    base = Rendered(track=job.track, key=key, sha256=sha256, seconds=seconds, voice=voice)
    needed = needed_seconds(job.spec, job.cutting)
    if seconds < needed:
        return base.model_copy(update={"unusable": f"too short: {seconds:.1f} s, a clip needs {needed:.1f} s"})
    clipped = clipped_seconds(samples, sample_rate)
    signal = prepare_signal(samples, sample_rate, job.spec)
    clips, rejects = [], []
    for window in windows(signal.shape[-1], job.spec, job.cutting):
        offset = window.frame * job.spec.hop_length / job.spec.sample_rate
        peaks = int(((clipped >= offset) & (clipped < offset + job.spec.tile_seconds)).sum())
        clip = signal[:, window.starts[0] : window.starts[0] + job.spec.tile_samples]
        loudness = clip_loudness(clip, job.spec.sample_rate)
        reason = reject_reason(clip, loudness, job.spec, peaks, job.reject)
        if reason:
            rejects.append((offset, reason))
        else:
            clips.append(_written(job, base, signal, window, offset=offset, loudness=loudness))
    return base.model_copy(update={"clips": tuple(clips), "rejects": tuple(rejects)})


def _written(job: RenderJob, base: Rendered, signal: Float, window: Window, *, offset: float, loudness: float) -> Clip:
    """Encode a clip at each of its time offsets and write the pictures."""
    assert window.starts[0] >= margin(job.spec)
    stem = f"{_slug(job.track)}-{base.key[:10]}-{window.frame:06d}"
    names = tuple(f"{stem}.png" if not index else f"{stem}.o{index}.png" for index in range(len(window.starts)))
    print_ = ""
    for name, start in zip(names, window.starts):
        levels = encode_clip(cut_clip(signal, start, job.spec.width, job.spec), job.spec)
        print_ = print_ or fingerprint(levels).hex()
        settings = {"track": job.track, "offset_seconds": start / job.spec.sample_rate}
        record = Record(stage="prepare", settings=dict(settings), inputs={"audio": base.sha256})
        write_spectrogram(job.out / WORK_NAME / STAGING_NAME / name, Spectrogram(levels, job.spec, record))
    return Clip(names=names, offset=offset, loudness_lufs=loudness, fingerprint=print_)


def _done(job: RenderJob, key: str) -> Rendered | None:
    """Return the journal entry of a key if it is whole and all its pictures are there."""
    try:
        found = Rendered.model_validate_json(journal_path(job.out, key).read_bytes())
    except (OSError, ValidationError):
        return None
    names = (name for clip in found.clips for name in clip.names)
    present = all(any(path.is_file() for path in picture_places(job.out, name)) for name in names)
    return found if present else None


def _key(job: RenderJob, sha256: str) -> str:
    settings = [
        RENDER_FORMAT,
        job.track,
        sha256,
        job.spec.model_dump(mode="json"),
        [stride_of(job.cutting, job.spec), job.cutting.count, job.cutting.skip_seconds, job.cutting.offsets],
        job.reject.model_dump(mode="json", exclude={"duplicate_similarity"}),
        job.listen,
    ]
    return sha256_bytes(json.dumps(settings, sort_keys=True).encode())[:32]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:SLUG_LENGTH].strip("-") or "track"
