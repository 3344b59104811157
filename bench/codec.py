"""Inversion beside librosa's, and our law beside others: `python -m bench codec`.

Every row works on the same clips, in one run. Each method has a process of its own for its peak memory; it is timed in
CPU seconds of one thread, so that other load on the machine does not decide.
"""

import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import codec_costs
from bench.table import Table
from sdxl_mel.arrays import Float, Levels
from sdxl_mel.sound.laws import DecibelLaw, PowerLaw
from sdxl_mel.sound.melspec import MelSpec, named_spec

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
CLIPS = ("strings", "piano", "band", "drums", "transients")
SECONDS = 5.0
STD = named_spec("std").model_copy(update={"channels": "grey"})
HEADER = ["method", "sound", "s", "x real time", "peak MiB", "SC dB", "mrSC dB", "LSD dB", "mel-L1 dB"]


class Method(NamedTuple):
    """One group of rows: how to invert, and the picture's law."""

    name: str
    inverter: Any
    iterations: int = 0
    spec: MelSpec = STD


METHODS = (
    Method("ours best", "best"),
    Method("ours fast", "fast"),
    Method("librosa mel_to_audio(32)", "librosa", 32),
    Method("librosa mel_to_audio(64)", "librosa", 64),
    Method("ours best, law 80 dB", "best", spec=STD.model_copy(update={"law": DecibelLaw()})),
    Method(
        "ours best, law power 0.25",
        "best",
        spec=STD.model_copy(update={"law": PowerLaw(exponent=0.25, reference=0.5)}),
    ),
)


class Row(NamedTuple):
    """What one method did on one clip."""

    clip: str
    cpu_seconds: float
    seconds: float
    sc_db: float
    mr_sc_db: float
    lsd_db: float
    mel_l1_db: float


def run() -> Table:
    """Measure every method on every clip."""
    rows = []
    for method in METHODS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            measured, peak = pool.submit(_measured, method).result()
        rows += [_cells(method, row, peak) for row in [*measured, _mean(measured)]]
    rows += codec_costs.rows(len(HEADER))
    notes = [
        f"{SECONDS:g} s of each clip, mono, preset std; s is CPU seconds of one thread, from levels to samples",
        "SC: spectral convergence of the mel values against the picture's own; the rest against the encoded sound",
        "peak: what the process grew by while inverting, after its imports; of the ten minutes, all that it ever had",
        "the last rows: the five clips one after another in stereo, fastest of 5; encoding is from decoded samples at "
        "44.1 kHz to the bytes of the PNG",
    ]
    return Table("codec: pictures to sound", HEADER, rows, notes)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _measured(method: Method) -> tuple[list[Row], float]:
    from bench.consistency import self_consistency_db
    from sdxl_mel.metrics.codec_fidelity import fidelity
    from sdxl_mel.sound.mel import margin

    pictures = list(_pictures(method.spec))
    _inverted(pictures[-1][2][:, :64], method)  # What is computed once: filter banks, plans, compiled functions.
    before = _peak_mib()
    rows = []
    for name, clip, levels in pictures:
        start = time.process_time()
        sound = _inverted(levels, method)
        spent = time.process_time() - start
        original = clip[:, margin(method.spec) : margin(method.spec) + sound.shape[-1]]
        found = fidelity(original, sound, method.spec.sample_rate)
        distances = (found.multi_resolution_sc_db, found.log_spectral_distance_db, found.mel_l1_db)
        consistency = self_consistency_db(levels, sound, method.spec)
        rows.append(Row(name, spent, sound.shape[-1] / method.spec.sample_rate, consistency, *distances))
    return rows, _peak_mib() - before


def _pictures(spec: MelSpec) -> Iterator[tuple[str, Float, Levels]]:
    from sdxl_mel.files.audio import read_audio
    from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal

    frames = int(SECONDS * spec.sample_rate / spec.hop_length)
    for name in CLIPS:
        samples, rate = read_audio(FIXTURES / f"{name}.flac")
        clip = cut_clip(prepare_signal(samples, rate, spec), 0, frames, spec)
        yield name, clip, encode_clip(clip, spec)


def _inverted(levels: Levels, method: Method) -> Float:
    from sdxl_mel.sound.inversion.griffin_lim import librosa_griffin_lim
    from sdxl_mel.sound.inversion.methods import invert
    from sdxl_mel.sound.pixels import dequantise, mel_of_values

    if method.inverter == "librosa":
        return librosa_griffin_lim(mel_of_values(dequantise(levels), method.spec), method.spec, 0, method.iterations)
    return invert(levels, method.spec, method.inverter)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _mean(rows: list[Row]) -> Row:
    numbers = np.array([row[1:] for row in rows])
    return Row("mean", *numbers.mean(axis=0))


def _cells(method: Method, row: Row, peak: float) -> list[str]:
    numbers = [row.sc_db, row.mr_sc_db, row.lsd_db, row.mel_l1_db]
    timing = [f"{row.cpu_seconds:.2f}", f"{row.seconds / row.cpu_seconds:.1f}", f"{peak:.0f}"]
    return [method.name, row.clip, *timing, *(f"{number:.2f}" for number in numbers)]
