"""What `sdxl-mel prepare` costs: MP3 to PNG a core, and the memory of ten thousand tracks."""

import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from bench.table import Table
from sdxl_mel.dataset.clips import windows
from sdxl_mel.dataset.render import RenderJob, render
from sdxl_mel.dataset.settings import Cutting, RejectSettings
from sdxl_mel.files.audio import read_audio
from sdxl_mel.files.spectrogram import Spectrogram, encode_png
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.melspec import PRESETS

SPEC = PRESETS["std"]
CUTTING = Cutting()
SECONDS = 120.0
SAMPLE_RATE = 44100
REPEATS = 3
FEW_ROWS, MANY_ROWS = 1000, 10_000
GOOD_TRACKS = 20

PREPARE = """
import resource, sys
from pathlib import Path
from sdxl_mel.progress import muted
from sdxl_mel.stages.prepare import Config, run
with muted():
    run(Config(music=Path(sys.argv[1]), out=Path(sys.argv[2]), preset="mini", jobs=1))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def run() -> Table:
    """Measure both on synthetic music; the steps are those of one track, the first row is all of them together."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = [throughput(folder), *steps(folder)]
        few, many = (memory(folder / str(count), count) for count in (FEW_ROWS, MANY_ROWS))
    grown = (many - few) / (MANY_ROWS - FEW_ROWS) * 1e3
    return Table(
        "prepare",
        ["what", "CPU seconds", "x real time a core"],
        rows,
        [
            f"{SECONDS:.0f} s of stereo MP3 at 44.1 kHz, preset std, fastest of {REPEATS}; CPU time of one process",
            f"peak memory with {FEW_ROWS:,} rows {few:.0f} MB, with {MANY_ROWS:,} rows {many:.0f} MB "
            f"({grown:.1f} kB a row)",
        ],
    )


def throughput(folder: Path) -> list[str]:
    """Return the row of a whole track, MP3 to PNG files and journal entry."""
    path = write_mp3(folder / "track.mp3")
    seconds = []
    for repeat in range(REPEATS + 1):
        job = RenderJob("track", path, folder / f"out{repeat}", SPEC, CUTTING, RejectSettings())
        start = time.process_time()
        rendered = render(job)
        seconds.append(time.process_time() - start)
    assert len(rendered.clips) == len(windows(round(SECONDS * SPEC.sample_rate), SPEC, CUTTING))
    return _row("MP3 to PNG, with fingerprint and loudness", min(seconds[1:]))


def steps(folder: Path) -> list[list[str]]:
    """Return a row for each step alone."""
    start = time.process_time()
    samples, rate = read_audio(folder / "track.mp3")
    decoded = time.process_time()
    signal = prepare_signal(samples, rate, SPEC)
    prepared = time.process_time()
    found = [
        cut_clip(signal, window.starts[0], SPEC.width, SPEC) for window in windows(signal.shape[-1], SPEC, CUTTING)
    ]
    tiles = [encode_clip(clip, SPEC) for clip in found]
    encoded = time.process_time()
    for levels in tiles:
        encode_png(Spectrogram(levels, SPEC))
    written = time.process_time()
    return [
        _row("decode", decoded - start),
        _row("resample, loudness, true peak", prepared - decoded),
        _row("mel spectrogram to levels", encoded - prepared),
        _row("levels to PNG", written - encoded),
    ]


def memory(folder: Path, count: int) -> float:
    """Return the peak memory in MB of preparing a table of `count` tracks, nearly all of them too short."""
    folder.mkdir()
    samples = numpy_generator(0, "bench").uniform(-0.5, 0.5, (GOOD_TRACKS, 7 * 16000))
    with (folder / "songs.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "caption", "artist"])
        for index in range(count):
            good = index < GOOD_TRACKS
            name = f"{index}.wav"
            sound = samples[index] if good else samples[0, index % 100 : index % 100 + 160]
            soundfile.write(folder / name, sound.astype(np.float32), 16000)
            table.writerow(
                [name, f"slow piano number {index} with soft strings, perfect for a rainy day", f"artist {index // 3}"]
            )
    command = [sys.executable, "-c", PREPARE, str(folder / "songs.csv"), str(folder / "out")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(printed.split()[-1]) / 1024


def write_mp3(path: Path) -> Path:
    """Write tones that come and go over noise, in stereo."""
    draw = numpy_generator(0, "bench mp3")
    count = round(SECONDS * SAMPLE_RATE)
    sound = 0.02 * draw.standard_normal((2, count), dtype=np.float32)
    second = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for start in draw.integers(0, count - SAMPLE_RATE, 300):
        tone = np.exp(-second / 0.3) * np.sin(2 * np.pi * draw.uniform(60, 6000) * second)
        sound[:, start : start + SAMPLE_RATE] += (tone * draw.uniform(0.2, 1.0, (2, 1))).astype(np.float32)
    soundfile.write(path, 0.8 * sound.T / np.abs(sound).max(), SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III")
    return path


def _row(what: str, seconds: float) -> list[str]:
    return [what, f"{seconds:.2f}", f"{SECONDS / seconds:.0f}"]
