"""The sound of stitched pictures: what cutting and joining costs (nothing), and that a loop has no junction."""

from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from sdxl_mel.files.audio import read_audio
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.encoding import cut_clip, encode_clip
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages import cut, stitch
from tests.stages.junction import junction_of_sound

SPEC = PRESETS["mini"]
BORDER = 8
"""Frames of the music before the picture, so that its first frame is real sound."""
NOTE_SECONDS = 0.21
SAME_ERROR_DB = 1.0
"""The spread of the error from one stretch of the music to another, measured over 30 stretches."""


def music(seconds: float, seed: int = 0) -> np.ndarray:
    """Return a melody of decaying notes with six harmonics over a held chord, (1, n)."""
    rate = SPEC.sample_rate
    generator = numpy_generator(seed, "melody")
    time = np.arange(round(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * pitch * time) * 0.03 for pitch in (130.8, 164.8, 196.0))
    for onset in np.arange(0, seconds, NOTE_SECONDS):
        pitch = 220 * 2 ** (generator.integers(0, 24) / 12)
        since = np.maximum(time - onset, 0)
        envelope = np.exp(-since * 8) * (time >= onset)
        sound = sound + sum(envelope * np.sin(2 * np.pi * pitch * n * since) * 0.1 / n for n in range(1, 7))
    return sound[None].astype(np.float32)


def picture(signal: np.ndarray, frames: int) -> np.ndarray:
    return encode_clip(cut_clip(signal, BORDER * SPEC.hop_length, frames, SPEC), SPEC)


def error_db(original: np.ndarray, sound: np.ndarray) -> float:
    one, other = (np.abs(scipy.signal.stft(samples, nperseg=1024)[2]) for samples in (original, sound))
    return 20 * np.log10(np.linalg.norm(one - other) / np.linalg.norm(one))


def test_cut_and_stitched_sound_is_the_uncut_sound_and_no_worse_in_the_overlaps(tmp_path: Path) -> None:
    frames, overlap, hop = 784, 80, SPEC.hop_length
    signal = music(13.0)
    whole = picture(signal, frames)
    write_spectrogram(tmp_path / "long.png", Spectrogram(whole, SPEC))
    cut.run(cut.Config(picture=tmp_path / "long.png", out=tmp_path / "tiles", overlap=str(overlap)))
    config = stitch.Config(
        tiles=(tmp_path / "tiles",), out=tmp_path / "again.png", wav=tmp_path / "again.flac", overlap=str(overlap)
    )
    report = stitch.run(config)
    sound, rate = read_audio(tmp_path / "again.flac")
    assert rate == SPEC.sample_rate
    np.testing.assert_allclose(sound, invert(whole, SPEC), atol=1 / 32768)
    original = signal[0, BORDER * hop :]
    inside = [slice(seam.start * hop, (seam.start + overlap) * hop) for seam in report.seams]
    between = [slice(one.stop, two.start) for one, two in zip(inside, inside[1:])]
    errors = [np.mean([error_db(original[piece], sound[0, piece]) for piece in pieces]) for pieces in (inside, between)]
    assert errors[0] <= errors[1] + SAME_ERROR_DB


@pytest.mark.parametrize("suffix", [".wav", ".ogg"])
def test_a_stitched_loop_has_no_junction_in_its_sound_file(tmp_path: Path, suffix: str) -> None:
    signal = music(9.0, seed=1)
    whole = picture(signal, 500)
    for index, start in enumerate((0, 150)):
        tile = Spectrogram(whole[:, start : start + SPEC.width], SPEC)
        write_spectrogram(tmp_path / "tiles" / f"{index}.png", tile)
    wav = tmp_path / f"loop{suffix}"
    config = stitch.Config(
        tiles=(tmp_path / "tiles",),
        out=tmp_path / "loop.png",
        wav=wav,
        overlap="64",
        loop=True,
        plot=tmp_path / "p.png",
    )
    report = stitch.run(config)
    frames = read_spectrogram(tmp_path / "loop.png").levels.shape[1]
    assert frames == 2 * (SPEC.width - 64)
    assert report.junction is not None
    assert report.junction < 1
    assert junction_of_sound(wav, frames, SPEC) < 1
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
