"""A sound becomes a picture and a sound again, with what is lost at each step.

python examples/codec.py song.flac --seconds 8 --out codec
"""

import argparse
from pathlib import Path

from sdxl_mel.files.audio import read_audio, write_audio
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
from sdxl_mel.metrics.codec_fidelity import fidelity
from sdxl_mel.sound.encoding import cut_clip, mel_spectrogram, prepare_signal
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.mel import margin
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.sound.pixels import quantise, values_of

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("song", type=Path)
parser.add_argument("--preset", default="std", choices=PRESETS)
parser.add_argument("--seconds", type=float, default=8.0)
parser.add_argument("--out", type=Path, default=Path("codec"))


def main() -> None:
    """Encode the start of a song, keep it as a PNG, invert what was kept, and print the fidelity ladder."""
    arguments = parser.parse_args()
    spec = PRESETS[arguments.preset]
    frames = round(arguments.seconds * spec.sample_rate / spec.hop_length)

    samples, rate = read_audio(arguments.song)  # (channels, n) float32
    track = prepare_signal(samples, rate, spec)  # at the spec's rate, channels and loudness
    clip = cut_clip(track, 0, frames, spec)  # with half a window of the true neighbourhood at both ends
    values = values_of(mel_spectrogram(clip, spec), spec)  # (n_mels, frames, channels) in 0..1
    levels = quantise(values)  # the same in 8 bits

    arguments.out.mkdir(parents=True, exist_ok=True)
    write_spectrogram(arguments.out / "picture.png", Spectrogram(levels, spec))  # the spec travels in the PNG
    kept = read_spectrogram(arguments.out / "picture.png")
    sound = invert(kept.levels, kept.spec, "best", seed=0)  # (1 or 2, frames * hop_length)
    write_audio(arguments.out / "sound.wav", sound, spec.sample_rate, spec=spec)

    original = clip[:, margin(spec) :][:, : sound.shape[-1]]
    steps = {"from the mel values": invert(values, spec, "best", seed=0), "from the 8-bit picture": sound}
    for step, estimate in steps.items():
        found = fidelity(original, estimate, spec.sample_rate)
        print(f"{step:<24} spectral convergence {found.multi_resolution_sc_db:6.2f} dB, mel {found.mel_l1_db:5.2f} dB")


if __name__ == "__main__":
    main()
