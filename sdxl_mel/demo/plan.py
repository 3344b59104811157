"""The plan of the demo: which commands, in which order, with which words."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from sdxl_mel.demo.steps import Step

FULL_MINUTES = 10.0


class Line(NamedTuple):
    """One command; what stands in braces is a place, a number of the plan, or words that several lines share."""

    name: str
    why: str
    stage: str
    words: str
    script: str | None = None


@dataclass(frozen=True)
class Size:
    """How much the demo does: a pure function of the minutes asked for, never of the clock."""

    tracks: int
    steps: int
    known: int

    @classmethod
    def of(cls, minutes: float) -> "Size":
        """Return the size of a demo of about so many minutes on two cores."""
        share = minutes / FULL_MINUTES
        return cls(
            tracks=max(10, round(360 * share)), steps=max(10, round(300 * share)), known=max(4, round(64 * share))
        )


def quick_dtype() -> str:
    """Return the dtype of all networks: bfloat16 halves the time where the processor has matrix tiles for it."""
    # Older versions of torch cannot tell.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if capabilities.get("amx_bf16") else "fp32"


TILES = "--seed {seed} --sampler dpmpp_2m --steps 10 --guidance 2.5 --batch 16 --method fast --dtype {dtype}"
SING = "--prompt {song} --seed {seed} --sampler dpmpp_2m --steps 15 --guidance 2.5 --dtype {dtype}"
SCORES = (
    "--reference {dataset} --embedder musicnn-msd --instruments --inversion fast --cache {embeddings} --seed {seed}"
)

PREPARE = Line(
    "prepare",
    "render scores for instruments that the base has never heard",
    "prepare",
    "--source demo --preset mini --tracks {tracks} --base mini --regularization-anchor {anchor} --seed {seed} "
    "--out {dataset}",
)

LINES = (
    Line(
        "ladder",
        "what each step of the codec keeps of a sound",
        "roundtrip",
        "{example} --preset mini --out {ladder} --seed {seed}",
    ),
    Line(
        "audit",
        "what the VAE costs: the ceiling of all that follows",
        "vae-audit",
        "--base mini --dataset {dataset} --clips 16 --sounds 2 --method fast --out {audit}",
    ),
    Line(
        "cache",
        "encode pictures and captions once",
        "cache",
        "--dataset {dataset} --base mini --splits train validation regularization --out {cache}",
    ),
    Line("base-new", "the base, asked for them", "generate", "--base mini --prompts {new} {draw} --out {base_new}"),
    Line(
        "base-known",
        "the base, asked for instruments it knows",
        "generate",
        "--base mini --prompts {known} {draw} --out {base_known}",
    ),
    Line(
        "train",
        "train the LoRA",
        "train",
        "--config {config} --base mini --cache {cache} --steps {steps} --save-every 100 --seed {seed} "
        "--hardware.precision {dtype} --out {run}",
        "train_lora.py",
    ),
    Line("fuse", "add it into the weights", "fuse", "--base mini --lora {lora} --out {fused}", "fuse_lora.py"),
    Line(
        "tuned-new",
        "the same prompts and seeds",
        "generate",
        "--base {fused} --prompts {new} {draw} --out {tuned_new}",
    ),
    Line(
        "tuned-known",
        "and has it forgotten?",
        "generate",
        "--base {fused} --prompts {known} {draw} --out {tuned_known}",
    ),
    Line(
        "long",
        "thirty seconds at once: overlapping views denoised together",
        "generate",
        "--base {fused} {sing} --seconds 30 --out {long}",
    ),
    Line(
        "parts",
        "for comparison, tiles that know nothing of each other",
        "generate",
        "--base {fused} {sing} --num 9 --batch 9 --format none --out {parts}",
    ),
    Line(
        "stitch",
        "joined in the power domain",
        "stitch",
        "{parts} --overlap 18.75% --out {stitched} --wav {stitched_sound}",
        "stitch.py",
    ),
    Line("score-base-new", "measure", "evaluate", "--generated {base_new} {measure} --out {score_base_new}"),
    Line(
        "score-tuned-new",
        "measure",
        "evaluate",
        "--generated {tuned_new} --against {base_new} {measure} --out {score_tuned_new}",
    ),
    Line("score-base-known", "measure", "evaluate", "--generated {base_known} {measure} --out {score_base_known}"),
    Line("score-tuned-known", "measure", "evaluate", "--generated {tuned_known} {measure} --out {score_tuned_known}"),
)

PLACES = {
    "dataset": "dataset",
    "example": "example.flac",
    "ladder": "ladder.json",
    "audit": "audit",
    "cache": "cache",
    "run": "run",
    "lora": "run/lora.safetensors",
    "embeddings": "scores/cache",
    "fused": "fused",
    "new": "prompts/new.jsonl",
    "known": "prompts/known.jsonl",
    "long": "long",
    "parts": "parts",
    "stitched": "stitched/long.png",
    "stitched_sound": "stitched/long.wav",
}
for _tiles in ("base-new", "base-known", "tuned-new", "tuned-known"):
    PLACES |= {_tiles.replace("-", "_"): f"tiles/{_tiles}", f"score_{_tiles}".replace("-", "_"): f"scores/{_tiles}"}


def place(folder: Path, name: str) -> Path:
    """Return where the demo keeps a thing."""
    return folder / PLACES[name]


def step_of(line: Line, folder: Path, values: dict[str, str]) -> Step:
    """Return a line of the plan as a step, its braces filled; a value with spaces stays one word."""
    known = {name: str(folder / path) for name, path in PLACES.items()} | values
    words = line.words.replace("{draw}", TILES).replace("{sing}", SING).replace("{measure}", SCORES).split()
    return Step(line.name, line.why, line.stage, tuple(word.format_map(known) for word in words), line.script)
