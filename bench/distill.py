"""Few steps beside many on the mini base: adherence, nearness to the teacher's own tiles, contrast, sound, copies.

Tiles are kept below runs/distill, block by block, under a hash of what drew them: a table that was interrupted goes
on, and only what changed is drawn anew. `python -m bench.distill --prompts 100 --adapter runs/steps/lora.safetensors`
judges another adapter with fewer prompts, `--student runs/student/base` a base with a smaller part, and `--style LORA`
what is left of a LoRA for new instruments under the adapter, the shipped one, which has never seen it, or another.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.drawn_tiles import BLOCK, Prompts, Rows, TileStore, Way, contrast, duets, mean_distance
from bench.table import Table
from sdxl_mel.assets import step_adapter
from sdxl_mel.corpus.instruments import LEFT_OUT
from sdxl_mel.corpus.tracks import Split
from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.metrics.intervals import Interval, paired_interval, proportion_interval
from sdxl_mel.models.lora.file import read_lora
from sdxl_mel.progress import log

PROMPTS = 200
FOLDER = Path("runs/distill")
TEACHER = Way("teacher: Euler, 25 steps, guided", Drawing("euler", 25, 2.5), 50)
SIXTEEN = Way("teacher: DPM++ 2M, 8 steps, guided", Drawing("dpmpp_2m", 8, 2.5), 16)
OTHERS = (
    SIXTEEN,
    Way("teacher: DDIM trailing, 2 steps, guided", Drawing("ddim", 2, 2.5, "trailing"), 4),
)
HEARD = 4
"""The steps of the shipped adapter whose sound is compared."""


def adapted(adapter: Path, steps: Sequence[int] = (4, 2, 8), loras: tuple[Path, ...] = ()) -> list[Way]:
    """Return the ways to draw with an adapter, and other LoRAs, as it asks but in these numbers of steps."""
    name = adapter.parent.name if adapter.stem == "lora" else adapter.stem
    asked = read_lora(adapter).header.drawing
    return [
        Way(f"{name}: {count} steps, no guidance", replace(asked, steps=count), count, (*loras, adapter))
        for count in steps
    ]


def run(prompts: int = PROMPTS, adapters: Sequence[Path] = (), students: Sequence[Path] = ()) -> Table:
    """Judge the shipped adapter beside all ways of the teacher; or other adapters, and students, beside its own."""
    shipped = step_adapter("mini")
    stated = [*adapters, *students]
    ways = [TEACHER, *(() if stated else OTHERS)]
    ways += [way for adapter in (adapters if stated else filter(None, [shipped])) for way in adapted(adapter)]
    ways += [replace(TEACHER, name=f"student {path}: Euler, 25 steps, guided", base=str(path)) for path in students]
    store = judged(prompts)
    return Table(
        title="Few steps: the mini base and its step adapter",
        header=[
            *("how", "UNet calls", "both right", "less the teacher's", "seen, held-out pairs", "distance", "spread"),
            *("contrast in time, in frequency", "nearest training tile", "FAD change", "seconds a tile"),
        ],
        rows=[row(store, way, heard=way.loras == (shipped,) and way.calls == HEARD) for way in ways],
        notes=[
            f"{prompts} prompts of held-out pieces for seen pairs of instruments and as many for held-out pairs, the "
            "same noise for all, float32. Both right: the oracle of docs/mini_base.md finds both instruments; 95 % "
            "intervals; the difference to the teacher is paired by prompt.",
            "Distance: to the teacher's own tile of the same prompt and noise, in the oracle's features, mean; spread: "
            "mean distance between tiles, contrast: mean change from frame to frame and from row to row, both as a "
            "share of the teacher's. Nearest training tile: least and median distance to those of the base's training.",
            "FAD change: of musicnn, to real renders, against the 16 guided calls, paired; below 0 is nearer.",
            f"Seconds a tile: with decoding, in batches of {BLOCK} on one thread; only of those drawn in this run.",
        ],
    )


def judged(prompts: int) -> TileStore:
    """Return the tiles of as many prompts for seen pairs of instruments, and as many for held-out pairs."""
    splits: tuple[Split, ...] = ("test-seen", "test-unseen")
    return TileStore(FOLDER, Prompts({split: duets(split, prompts) for split in splits}))


def row(store: TileStore, way: Way, *, heard: bool) -> list[str]:
    """Return what is told of a way to draw."""
    start, drawn = time.perf_counter(), store.missing(way)
    mine, teachers = store.tiles(way), store.tiles(TEACHER)
    seconds = (time.perf_counter() - start) / drawn if drawn else None
    right, right_of_teacher = store.right(way), store.right(TEACHER)
    both = proportion_interval(int(right.sum()), len(right))
    half = len(right) // 2
    near, near_teacher = store.features(way), store.features(TEACHER)
    contrasts = [contrast(mine, axis) / contrast(teachers, axis) for axis in (2, 1)]
    nearest = store.nearest(near)
    return [
        way.name,
        str(way.calls),
        f"{both.value:.3f} ({both.low:.3f} to {both.high:.3f})",
        "" if way == TEACHER else told(paired_interval(right_of_teacher, right)),
        f"{right[:half].mean():.3f}, {right[half:].mean():.3f}",
        f"{np.linalg.norm(near - near_teacher, axis=1).mean():.2f}",
        f"{mean_distance(near) / mean_distance(near_teacher):.3f}",
        ", ".join(f"{each:.3f}" for each in contrasts),
        f"{nearest.min():.1f}, {np.median(nearest):.1f}",
        told(store.fad_change(SIXTEEN, way)) if heard else "",
        "" if seconds is None else f"{seconds:.2f}",
    ]


def run_style(style: Path, adapter: Path, prompts: int, guidance: float | None = None) -> Table:
    """Judge how much of what a LoRA for new instruments finds is found with the adapter, at a guidance or with none."""
    store = TileStore(FOLDER, Prompts({"new instruments": duets("test-seen", prompts, "left-out")}))
    guided = replace(read_lora(style).header.drawing, sampler="euler", steps=25)
    loras = ((), (style,))
    many = [Way("25 guided steps of Euler", guided, 50, each) for each in loras]
    few = [way for each in loras for way in adapted(adapter, (4,), each)]
    if guidance is not None:
        few = [
            Way(f"4 steps, guidance {guidance:g}", replace(way.drawing, guidance=guidance), 2 * way.calls, way.loras)
            for way in few
        ]
    found = {way: new_found(store, way) for way in (*many, *few)}
    gains = [found[styled] - found[plain] for plain, styled in (many, few)]
    return Table(
        title=f"A LoRA under the step adapter: {style}",
        header=["on", "how", "UNet calls", "new instruments found", "both right"],
        rows=[
            ["LoRA" if style in way.loras else "base", way.name, str(way.calls), share(new), share(store.right(way))]
            for way, new in found.items()
        ],
        notes=[
            f"{prompts} prompts of held-out pieces for a new instrument and another, the same noise, float32.",
            f"The LoRA gains {gains[0].mean():.3f} in 25 guided steps and {gains[1].mean():.3f} in 4 with the adapter, "
            f"{gains[1].mean() / gains[0].mean():.2f} of it; the difference is {told(paired_interval(*gains))}.",
        ],
    )


def new_found(store: TileStore, way: Way) -> Rows:
    """Return 1 for each tile in which its new instrument is found, else 0."""
    flags = (dict(zip(*pair)) for pair in zip(store.prompts.wanted, store.found(way)))
    return np.array([float(any(found for name, found in each.items() if name in LEFT_OUT)) for each in flags])


def share(rows: Rows) -> str:
    """Return a share with its bounds."""
    interval = proportion_interval(int(rows.sum()), len(rows))
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def told(interval: Interval) -> str:
    """Return a difference with its bounds."""
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="prompts of each kind, a multiple of 20")
    parser.add_argument("--adapter", type=Path, action="append", default=[], help="adapter in place of the shipped one")
    parser.add_argument("--student", type=Path, action="append", default=[], help="base with a smaller part")
    parser.add_argument("--style", type=Path, help="LoRA for new instruments: judge what the adapter keeps of it")
    parser.add_argument("--guidance", type=float, help="guidance of the few steps with --style; none = without")
    words = parser.parse_args()
    log("judging")
    if words.style:
        stated: list[Path] = words.adapter or list(filter(None, [step_adapter("mini")]))
        print(run_style(words.style, stated[0], words.prompts, words.guidance).markdown())
    else:
        print(run(words.prompts, words.adapter, words.student).markdown())
