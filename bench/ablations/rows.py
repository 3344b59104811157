"""What is changed: a row a setting, those of the original's table first."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdxl_mel.config import merged, read_toml, validated
from sdxl_mel.training.lora_settings import Config

CONFIGS = Path(__file__).parents[2] / "configs" / "ablations"
MINI, BASE = (read_toml(CONFIGS / f"{name}.toml") for name in ("mini", "base"))
RANKS = MINI["adapter"]["rank"] / BASE["adapter"]["rank"]
SIZES = {"rank": RANKS, "alpha": RANKS} | {name: MINI[name] / BASE[name] for name in ("steps", "batch")}
"""What turns a size that a config states for SDXL into that of mini."""
OTHER_SEED = 100
"""How far the seed of the noise floor's training lies from that of the run it is compared with."""


@dataclass(frozen=True)
class Row:
    """One change of the baseline, `configs/ablations/mini.toml`.

    `file` is the config of configs/ablations that makes it, `settings` are those beside it or instead of it, and
    `original` is the verdict of the original's table. `clip_skip` is that of the cache.
    """

    name: str
    change: str
    file: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    original: str = ""
    other_seed: int = 0
    clip_skip: int = 0


def _adapter(**settings: Any) -> dict[str, Any]:
    return {"adapter": settings}


def _rates(times: float) -> dict[str, Any]:
    """Return all three rates of the baseline times a number."""
    names = ("rate", "text_encoder_rate", "text_encoder_2_rate")
    return {"optimizer": {name: MINI["optimizer"][name] * times for name in names}}


def _steps(times: float) -> dict[str, Any]:
    return {"steps": round(MINI["steps"] * times)}


def _huber(**settings: Any) -> dict[str, Any]:
    return {"loss": {"kind": "huber", "huber": settings}}


def _rank(times: float) -> dict[str, Any]:
    """Return the rank of the baseline times a number; alpha is the rank."""
    return _adapter(rank=round(MINI["adapter"]["rank"] * times))


def _alpha(times: float) -> dict[str, Any]:
    return _adapter(alpha=MINI["adapter"]["rank"] * times)


BASELINE = Row("baseline", "plain squared error, uniform weights")
FLOOR = Row("other-seed", "nothing: the same from another seed", other_seed=OTHER_SEED)
BETTER, COLLAPSE = "better", "better, then collapse"
SIGN = "verdict changed sign between versions"

ORIGINAL = (
    Row("latents", "one frozen latent a clip", "latents", original="needed for speed"),
    Row("rank-2", "rank and alpha twice", settings=_rank(2), original=COLLAPSE),
    Row("rank-4", "rank and alpha 4 times", settings=_rank(4), original=COLLAPSE),
    Row("rank-16", "rank and alpha 16 times", "rank", original=COLLAPSE),
    Row("alpha-2", "alpha twice, the same rank", settings=_alpha(2), original=COLLAPSE),
    Row("alpha-4", "alpha 4 times", "alpha", original=COLLAPSE),
    Row("alpha-16", "alpha 16 times", settings=_alpha(16), original=COLLAPSE),
    Row("one-wording", "one fixed wording a caption (shuffle left out)", "shuffle", original="shuffle better"),
    Row("batch-equal-examples", "batch 4 times, steps a quarter", "batch", _steps(0.25), original="larger better"),
    Row("batch-equal-steps", "batch 4 times, as many steps", "batch", original="better, with mode collapse"),
    Row("repeats-2", "twice the steps", settings=_steps(2), original=BETTER),
    Row("repeats-5", "5 times the steps", "repeats", original=BETTER),
    Row("noise-offset-.03", "noise offset .03", settings={"noise": {"offset": 0.03}}, original=SIGN),
    Row("noise-offset-.05", "noise offset .05", settings={"noise": {"offset": 0.05}}, original=SIGN),
    Row("noise-offset-.1", "noise offset .1", "noise-offset", original=SIGN),
    Row("regularization-.25", "a quarter regularisation", "regularization", original=BETTER),
    Row("regularization-.5", "half regularisation", settings={"regularization": {"share": 0.5}}, original=BETTER),
    Row("huber", "pseudo-Huber .15 to .05", "huber", original=BETTER),
    Row("huber-rate-2", "pseudo-Huber at twice the rates", "huber", _rates(2.0), original=BETTER),
    Row("min-snr-5", "min-SNR, gamma 5", "min-snr", original="inconclusive"),
    Row("min-snr-1", "min-SNR, gamma 1", "min-snr", {"loss": {"gamma": 1.0}}, original="inconclusive"),
    Row("min-snr-20", "min-SNR, gamma 20", "min-snr", {"loss": {"gamma": 20.0}}, original="inconclusive"),
)
OURS = (
    Row("rate-half", "half the rates", settings=_rates(0.5)),
    Row("rate-double", "twice the rates", settings=_rates(2.0)),
    Row("unet-alone", "text encoders left alone", settings=_adapter(text_encoders=[])),
    Row("no-caption-dropout", "no caption dropout", settings={"caption_dropout": 0.0}),
    Row("caption-dropout-.25", "caption dropout .25", settings={"caption_dropout": 0.25}),
    Row(
        "empty-regularization",
        "half regularisation, empty captions there alone",
        settings={"caption_dropout": 0.0, "regularization": {"share": 0.5, "caption_dropout": 0.25}},
    ),
    Row("attention", "attention layers alone", "attention"),
    Row("dora", "DoRA", "dora"),
    Row("rslora", "rsLoRA", settings=_adapter(rslora=True)),
    Row("lora-plus", "LoRA+, 4 times", settings={"optimizer": {"lora_plus": 4.0}}),
    Row("clip-skip-1", "one text layer more skipped", clip_skip=1),
    Row("huber-snr", "pseudo-Huber by noise level", "huber-snr"),
    Row("debiased", "debiased weights", settings={"loss": {"weighting": "debiased"}}),
    Row("unstratified", "timesteps drawn freely", settings={"timesteps": {"stratified": False}}),
    Row("logit-normal", "logit-normal timesteps", settings={"timesteps": {"distribution": "logit-normal"}}),
    Row("constant-rate", "constant rate", settings={"optimizer": {"schedule": "constant"}}),
    Row("linear-rate", "linear decay of the rate", settings={"optimizer": {"schedule": "linear"}}),
    Row("average-.1", "average of weights, .1, where better", settings={"averages": {"lengths": [0.1]}}),
    Row("average-.2", "average of weights, .2, where better", settings={"averages": {"lengths": [0.2]}}),
    Row(
        "feedback",
        "weights moved to their average every 20 steps",
        settings={"averages": {"lengths": [0.1], "feedback_every": 20}},
    ),
    Row("multires", "coarse noise, 6 levels", "multires"),
    Row("perturbation", "input perturbation .1", "perturbation"),
)
ROWS = {row.name: row for row in (BASELINE, FLOOR, *ORIGINAL, *OURS)}
LEFT_OUT = {
    "vocals kept or left out": "the corpus has no voices",
    "SpecAugment, a loss on the sound, bucketing": "the trainer has none of them",
}
"""What the original or the field varies and no row does, with the reason."""


def config_of(row: Row, seed: int, cache: Path, out: Path) -> Config:
    """Return the settings of a run: mini's baseline with the change of the row."""
    place = {"cache": cache, "out": out, "seed": seed + row.other_seed}
    change = change_of(row.file) if row.file else {}
    return validated(Config, merged(merged(merged(MINI, change), row.settings), place), f"row {row.name}")


def change_of(file: str) -> dict[str, Any]:
    """Return what a config of configs/ablations changes in base.toml, its sizes turned into those of mini."""
    return _changed(read_toml(CONFIGS / f"{file}.toml"), BASE)


def _changed(tables: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _on_mini(name, value, base.get(name)) for name, value in tables.items() if value != base.get(name)}


def _on_mini(name: str, value: Any, before: Any) -> Any:
    if isinstance(value, Mapping):
        return _changed(value, before or {})
    return type(value)(value * SIZES[name]) if name in SIZES else value
