"""A sound becomes a picture and a sound again, with what is lost at each step.

python examples/codec.py song.flac --seconds 8 --out codec
"""

import argparse
from pathlib import Path

from sdxl_mel import (
    Spectrogram,
    encode,
    fidelity_ladder,
    invert,
    named_spec,
    read_audio,
    read_spectrogram,
    write_audio,
    write_spectrogram,
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("song", type=Path)
parser.add_argument("--preset", default="std")
parser.add_argument("--seconds", type=float, default=8.0)
parser.add_argument("--out", type=Path, default=Path("codec"))


def main() -> None:
    """Encode the start of a song, keep it as a PNG, invert what was kept, and print what each step keeps."""
    arguments = parser.parse_args()
    spec = named_spec(arguments.preset)
    samples, rate = read_audio(arguments.song)  # (channels, n) float32
    levels = encode(samples, rate, spec, seconds=arguments.seconds)  # (n_mels, frames, channels), 8 bits

    arguments.out.mkdir(parents=True, exist_ok=True)
    write_spectrogram(arguments.out / "picture.png", Spectrogram(levels, spec))  # the spec travels in the PNG
    kept = read_spectrogram(arguments.out / "picture.png")
    sound = invert(kept.levels, kept.spec, "best", seed=0)  # (1 or 2, frames * hop_length)
    write_audio(arguments.out / "sound.wav", sound, kept.spec.sample_rate, spec=kept.spec)

    _, rows = fidelity_ladder(samples, rate, spec, seconds=arguments.seconds)
    for step, row in rows.items():
        convergence, mel = row["multi_resolution_sc_db"], row["mel_l1_db"]
        print(f"{step:<16} spectral convergence {convergence:6.2f} dB, mel {mel:5.2f} dB")


if __name__ == "__main__":
    main()
