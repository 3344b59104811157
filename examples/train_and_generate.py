"""Rendered music becomes a training set, a cache, a LoRA for mini, and new music.

python examples/train_and_generate.py --tracks 20 --steps 50 --out small-lora
"""

import argparse
from pathlib import Path

from sdxl_mel.models.lora.file import read_lora
from sdxl_mel.stages import cache, generate, prepare, train

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--tracks", type=int, default=20)
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--sampling-steps", type=int, default=25)
parser.add_argument("--prompt", default="accordion and banjo, fast")
parser.add_argument("--out", type=Path, default=Path("small-lora"))


def main() -> None:
    """Call the four stages one after the other: each takes its settings and returns a report."""
    arguments = parser.parse_args()
    out: Path = arguments.out

    prepared = prepare.run(prepare.Config(source="demo", tracks=arguments.tracks, preset="mini", out=out / "data"))
    print(prepared.summary())
    print(cache.run(cache.Build(dataset=out / "data", base="mini", out=out / "cache")).summary())

    settings = {
        "base": "mini",
        "cache": out / "cache",
        "out": out / "run",
        "steps": arguments.steps,
        "batch": 4,
        "adapter": {"rank": 8, "targets": ("attention",)},  # every setting of --help-all has a place here
        "optimizer": {"rate": 1e-3},
    }
    print(train.run(train.Config.model_validate(settings)).summary())

    lora = read_lora(out / "run" / "lora.safetensors")
    print(f"{len(lora.modules)} adapted layers, anchor {lora.header.anchor!r}")
    drawn = generate.run(
        generate.Config(
            base="mini",
            lora=out / "run" / "lora.safetensors",
            prompt=arguments.prompt,
            steps=arguments.sampling_steps,
            out=out / "songs",
        )
    )
    print(drawn.summary())


if __name__ == "__main__":
    main()
