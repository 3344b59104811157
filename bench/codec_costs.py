"""What the codec costs on a whole tile and on ten minutes: the rows of `python -m bench codec` that compare nothing."""

import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from sdxl_mel.arrays import Float
from sdxl_mel.options import Method
from sdxl_mel.sound.melspec import named_spec

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
CLIPS = ("strings", "piano", "band", "drums", "transients")
STD = named_spec("std")
REPEATS = 5
TEN_MINUTES = 600.0


def rows(columns: int) -> list[list[str]]:
    """Return the rows, filled up with dashes to so many columns."""
    found = [_apart(_encoding), *(_apart(_tile, method) for method in ("fast", "best"))]
    with tempfile.TemporaryDirectory() as folder:
        _apart(_write_long_picture, folder)
        found.append(_apart(_long_inversion, folder))
    return [[*row, *["-"] * (columns - len(row))] for row in found]


def _apart(measure: Callable[..., Any], *arguments: str) -> Any:
    """Return what `measure` says in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def _encoding() -> list[str]:
    import torch

    from sdxl_mel.files.spectrogram import Spectrogram, encode_png
    from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal

    torch.set_num_threads(1)
    sound, rate = _music()

    def encode() -> None:
        signal = prepare_signal(sound, rate, STD)
        frames = signal.shape[-1] // STD.hop_length
        encode_png(Spectrogram(encode_clip(cut_clip(signal, 0, frames, STD), STD), STD))

    spent = min(_seconds(encode, time.process_time) for _ in range(REPEATS))
    return _row("encode to PNG, one core", "30 s stereo", spent, sound.shape[-1] / rate)


def _tile(method: Method) -> list[str]:
    import torch

    from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
    from sdxl_mel.sound.inversion.methods import invert

    torch.set_num_threads(os.cpu_count() or 1)
    levels = encode_clip(cut_clip(prepare_signal(*_music(), STD), 0, STD.width, STD), STD)
    invert(levels[:, :64], STD, method)
    spent = min(_seconds(lambda: invert(levels, STD, method), time.perf_counter) for _ in range(REPEATS))
    return _row(f"ours {method}, all cores, by the clock", "16.4 s stereo tile", spent, STD.tile_seconds)


def _write_long_picture(folder: str) -> None:
    from sdxl_mel.cli import main
    from sdxl_mel.files.audio import write_audio

    sound, rate = _music()
    repeats = int(np.ceil((TEN_MINUTES + 1) * rate / sound.shape[-1]))
    write_audio(Path(folder, "long.flac"), np.tile(sound, (1, repeats)), rate)
    words = [f"{folder}/long.flac", "--out", f"{folder}/long.png", "--seconds", f"{TEN_MINUTES:g}", "--quiet"]
    assert main(["encode", *words]) == 0


def _long_inversion(folder: str) -> list[str]:
    from sdxl_mel.cli import main

    words = [f"{folder}/long.png", "--out", f"{folder}/long.wav", "--method", "fast", "--quiet"]
    spent = _seconds(lambda: main(["invert", *words]), time.perf_counter)
    row = _row("sdxl-mel invert, fast, all cores, by the clock", "10 min stereo picture", spent, TEN_MINUTES)
    return [*row, f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} in all"]


def _music() -> tuple[Float, int]:
    """Return the clips one after another, in stereo, and their rate."""
    from sdxl_mel.files.audio import read_audio

    clips = [read_audio(FIXTURES / f"{name}.flac") for name in CLIPS]
    stereo = [np.broadcast_to(samples, (2, samples.shape[-1])) for samples, _ in clips]
    return np.concatenate(stereo, axis=-1), clips[0][1]


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def _row(what: str, sound: str, spent: float, seconds: float) -> list[str]:
    return [what, sound, f"{spent:.2f}", f"{seconds / spent:.1f}"]
