"""Two ways to a piece longer than a tile, and how much their joins stand out.

python examples/long_piece.py --seconds 20 --out long
"""

import argparse
from pathlib import Path

from sdxl_mel.stages import generate, stitch

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--prompt", default="violin and piano, slow")
parser.add_argument("--seconds", type=float, default=20.0)
parser.add_argument("--tiles", type=int, default=6)
parser.add_argument("--sampling-steps", type=int, default=25)
parser.add_argument("--out", type=Path, default=Path("long"))


def main() -> None:
    """Draw a piece whose views are denoised together, stitch one of tiles that know nothing of each other, compare."""
    arguments = parser.parse_args()
    out: Path = arguments.out
    common = {"base": "mini", "prompt": arguments.prompt, "steps": arguments.sampling_steps}

    joint = generate.run(generate.Config(**common, seconds=arguments.seconds, out=out / "joint")).results[0]
    generate.run(generate.Config(**common, num=arguments.tiles, format="none", out=out / "tiles"))
    apart = stitch.run(
        stitch.Config(tiles=(out / "tiles",), overlap="25%", out=out / "stitched.png", wav=out / "stitched.wav")
    )

    # A seam's z-score compares the change of spectrum across it with that across equal stretches elsewhere.
    print("joint:    ", *(f"{score:+.2f}" for score in joint.seam_scores if score is not None))
    print("stitched: ", *(f"{seam.score:+.2f}" for seam in apart.seams if seam.score is not None))


if __name__ == "__main__":
    main()
