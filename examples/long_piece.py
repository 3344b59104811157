"""Two ways to a piece longer than a tile: drawn jointly, or stitched of tiles that know nothing of each other.

python examples/long_piece.py --seconds 20 --out long
"""

import argparse
from pathlib import Path

from sdxl_mel import Generator, Spectrogram, invert, stitch, write_audio, write_spectrogram

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--prompt", default="violin and piano, slow")
parser.add_argument("--seconds", type=float, default=20.0)
parser.add_argument("--tiles", type=int, default=6)
parser.add_argument("--sampling-steps", type=int, default=25)
parser.add_argument("--out", type=Path, default=Path("long"))


def main() -> None:
    """Draw a piece whose views are denoised together, stitch one of independent tiles, write both with their sound."""
    arguments = parser.parse_args()
    steps = arguments.sampling_steps
    generator = Generator.open("mini")
    spec = generator.spec

    (joint,) = generator.draw_prompts([arguments.prompt], seconds=arguments.seconds, steps=steps)
    tiles = [each.levels for each in generator.draw_prompts([arguments.prompt], num=arguments.tiles, steps=steps)]
    stitched = stitch(tiles, [spec.width // 4] * (len(tiles) - 1), spec)

    for name, levels in (("joint", joint.levels), ("stitched", stitched.levels)):
        write_spectrogram(arguments.out / f"{name}.png", Spectrogram(levels, spec))
        write_audio(arguments.out / f"{name}.wav", invert(levels, spec), spec.sample_rate, spec=spec)
    # A seam's z-score compares the change of spectrum across it with that across equal stretches elsewhere.
    for name, seams in (("joint", joint.seams), ("stitched", stitched.seams)):
        print(f"{name} seams:", *(f"{seam.score:+.2f}" for seam in seams if seam.score is not None))


if __name__ == "__main__":
    main()
