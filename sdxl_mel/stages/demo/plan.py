"""The plan of the demo: which commands, in which order, with which words."""

from dataclasses import dataclass
from pathlib import Path

from sdxl_mel.stages.demo.steps import Step

FULL_MINUTES = 10.0
LEAST_STEPS = 20


@dataclass(frozen=True)
class Size:
    """How much the demo does; a pure function of the minutes asked for, never of the clock."""

    tracks: int
    steps: int
    known_prompts: int
    batch: int = 16

    @classmethod
    def of(cls, minutes: float) -> "Size":
        """Return the size of a demo of about so many minutes on two cores."""
        share = minutes / FULL_MINUTES
        return cls(
            tracks=max(10, round(240 * share)), steps=max(LEAST_STEPS, round(300 * share)), known_prompts=max(4, round(80 * share))
        )


@dataclass(frozen=True)
class Places:
    """Where the demo puts its things."""

    folder: Path

    @property
    def dataset(self) -> Path:
        """Return the prepared corpus."""
        return self.folder / "dataset"

    @property
    def cache(self) -> Path:
        """Return the latents and text embeddings."""
        return self.folder / "cache"

    @property
    def run(self) -> Path:
        """Return the training run."""
        return self.folder / "run"

    @property
    def lora(self) -> Path:
        """Return the trained LoRA."""
        return self.run / "lora.safetensors"

    @property
    def fused(self) -> Path:
        """Return the fused model."""
        return self.folder / "fused"

    def prompts(self, kind: str) -> Path:
        """Return the prompts of the new or of the known instruments."""
        return self.folder / "prompts" / f"{kind}.jsonl"

    def tiles(self, model: str, kind: str) -> Path:
        """Return the tiles of the base or of the tuned model."""
        return self.folder / "tiles" / model / kind

    def scores(self, model: str, kind: str) -> Path:
        """Return the evaluation of those tiles."""
        return self.folder / "scores" / model / kind


def first_steps(places: Places, size: Size, seed: int) -> list[Step]:
    """Return the steps up to the dataset, from which the prompts are taken."""
    words = ["--source", "demo", "--preset", "mini", "--tracks", size.tracks, "--base", "mini", "--seed", seed]
    return [_step("prepare", "render music of instruments the base has never heard", "prepare", *words, "--out", places.dataset)]


def later_steps(places: Places, size: Size, seed: int, song: str) -> list[Step]:
    """Return the steps from the dataset to the measured result; `song` is the prompt of the long piece."""
    config = "configs/mini.toml"
    return [
        _step("audit", "what the picture format and the VAE cost", "vae-audit", "--base", "mini", "--dataset", places.dataset, "--out", places.folder / "audit"),
        _step("cache", "encode pictures and captions once", "cache", "--dataset", places.dataset, "--base", "mini", "--out", places.cache),
        *(_tiles(places, "base", kind, seed) for kind in ("new", "known")),
        _step("train", "train the LoRA", "train", "--config", config, "--base", "mini", "--cache", places.cache, "--out", places.run, "--steps", size.steps, "--batch", size.batch, "--seed", seed, "--resume", door="train_lora.py"),
        _step("fuse", "add the LoRA into the weights", "fuse", "--base", "mini", "--lora", places.lora, "--out", places.fused, door="fuse_lora.py"),
        *(_tiles(places, "tuned", kind, seed) for kind in ("new", "known")),
        _step("long", "thirty seconds in one go, views denoised together", "generate", "--base", places.fused, "--prompt", song, "--seconds", 30, "--seed", seed, "--out", places.folder / "long", "--plot"),
        _step("parts", "tiles that know nothing of each other", "generate", "--base", places.fused, "--prompt", song, "--num", 4, "--seed", seed, "--format", "none", "--out", places.folder / "parts"),
        _step("stitch", "join them in the power domain", "stitch", places.folder / "parts", "--overlap", "25%", "--out", places.folder / "stitched.png", "--wav", places.folder / "stitched.wav", "--plot", places.folder / "stitched-seams.png", door="stitch.py"),
        *(_scores(places, model, kind) for kind in ("new", "known") for model in ("base", "tuned")),
    ]


def _tiles(places: Places, model: str, kind: str, seed: int) -> Step:
    base = "mini" if model == "base" else places.fused
    why = f"{kind} instruments, drawn by the {model} model"
    words = ["--base", base, "--prompts", places.prompts(kind), "--seed", seed, "--steps", 25, "--batch", 16]
    return _step(f"{model}-{kind}", why, "generate", *words, "--method", "fast", "--out", places.tiles(model, kind))


def _scores(places: Places, model: str, kind: str) -> Step:
    words = ["--generated", places.tiles(model, kind), "--reference", places.dataset, "--training", places.dataset]
    return _step(f"judge-{model}-{kind}", f"measure the {model} model on {kind} instruments", "evaluate", *words, "--out", places.scores(model, kind))


def _step(name: str, why: str, stage: str, *words: object, door: str | None = None) -> Step:
    return Step(name, why, stage, tuple(map(str, words)), door)
