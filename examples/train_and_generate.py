"""Rendered music becomes a training set, a cache, a LoRA for mini, and new music.

python examples/train_and_generate.py --tracks 20 --steps 50 --out small-lora
"""

import argparse
from pathlib import Path

from sdxl_mel import (
    CacheSettings,
    DemoSource,
    Generator,
    Spectrogram,
    TrainSettings,
    build_cache,
    invert,
    named_spec,
    prepare,
    read_lora,
    train,
    write_audio,
    write_spectrogram,
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--tracks", type=int, default=20)
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--sampling-steps", type=int, default=25)
parser.add_argument("--prompt", default="accordion and banjo, fast")
parser.add_argument("--out", type=Path, default=Path("small-lora"))


def main() -> None:
    """Call the engines one after the other: each takes values and returns what it made."""
    arguments = parser.parse_args()
    out: Path = arguments.out

    prepared = prepare(DemoSource(arguments.tracks, "left-out", seed=0), out / "data", named_spec("mini"))
    print(prepared.dataset.counts)
    print(build_cache(out / "cache", CacheSettings(out / "data", "mini")))

    settings = {
        "base": "mini",
        "cache": out / "cache",
        "out": out / "run",
        "steps": arguments.steps,
        "batch": 4,
        "adapter": {"rank": 8, "targets": ("attention",)},  # every setting of --help-all has a place here
        "optimizer": {"rate": 1e-3},
    }
    print(train(TrainSettings.model_validate(settings)))

    file = out / "run" / "lora.safetensors"
    lora = read_lora(file)
    print(f"{len(lora.modules)} adapted layers, anchor {lora.header.anchor!r}")
    generator = Generator.open("mini", loras=[file])
    for result in generator.draw_prompts([arguments.prompt], num=2, steps=arguments.sampling_steps):
        name = result.job.name
        write_spectrogram(out / "songs" / f"{name}.png", Spectrogram(result.levels, result.spec))
        write_audio(out / "songs" / f"{name}.wav", invert(result.levels, result.spec), result.spec.sample_rate)


if __name__ == "__main__":
    main()
