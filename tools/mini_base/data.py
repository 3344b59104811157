"""Renders of the corpus as pictures, made once and kept: uint8 (tracks, n_mels, frames) and what each track is."""

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdxl_mel.corpus.scores import PieceSplit, score_bank
from sdxl_mel.corpus.tracks import Group, Split, TrackPlan, plan_tracks, render_track
from sdxl_mel.files.atomic import atomic_path, write_json
from sdxl_mel.progress import track
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.melspec import PRESETS

SPEC = PRESETS["mini"]
TRACK_SECONDS = 8.0
FIRST_FRAME, FRAMES = 32, 448
"""The first half second is left out: sound before the render's start is missing there."""

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Renders:
    """Pictures (tracks, 128, 448), low frequencies in row 0 of the array, and a description of each."""

    pictures: Pictures
    about: list[dict[str, object]]

    def tiles(self) -> Pictures:
        """Return one tile of each track, (tracks, 128, 256): its middle."""
        start = (FRAMES - SPEC.width) // 2
        return self.pictures[:, :, start : start + SPEC.width]


def renders(
    folder: Path,
    split: Split,
    count: int,
    *,
    group: Group = "base",
    seed: int = 0,
    workers: int = 2,
    pieces: PieceSplit | None = None,
) -> Renders:
    """Return the renders of a split from `folder`, made first where they are missing."""
    name = f"{group}-{split}-{count}-{seed}" + (f"-{pieces}" if pieces else "")
    pictures, about = folder / f"{name}.npy", folder / f"{name}.json"
    if not (pictures.exists() and about.exists()):
        plans = plan_tracks(split, count, TRACK_SECONDS, group=group, seed=seed, pieces=pieces)
        _make(pictures, about, plans, workers)
    return Renders(np.load(pictures, mmap_mode="r"), json.loads(about.read_text()))


def _make(pictures: Path, about: Path, plans: list[TrackPlan], workers: int) -> None:
    stack = np.zeros((len(plans), SPEC.n_mels, FRAMES), np.uint8)
    rows = []
    for index, (levels, row) in enumerate(track(_rendered(plans, workers), len(plans), f"rendering {pictures.stem}")):
        stack[index] = levels
        rows.append(row)
    with atomic_path(pictures) as temporary, temporary.open("wb") as file:
        np.save(file, stack)
    write_json(about, rows)


def _rendered(plans: list[TrackPlan], workers: int) -> Iterator[tuple[Pictures, dict[str, object]]]:
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_picture, plans, chunksize=16)


def _picture(plan: TrackPlan) -> tuple[Pictures, dict[str, object]]:
    signal = prepare_signal(*render_track(plan), SPEC)
    levels = encode_clip(cut_clip(signal, FIRST_FRAME * SPEC.hop_length, FRAMES, SPEC), SPEC)
    about = {
        "captions": list(plan.captions),
        "piece": plan.piece,
        "style": score_bank()[plan.piece].style,
        "instruments": list(plan.instruments),
    }
    return levels[:, :, 0], about
