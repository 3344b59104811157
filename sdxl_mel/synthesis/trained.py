"""What the training of a base and of its LoRAs fixed or found good: spec, anchor, clip skip, and how to draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.base import Base
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.models.lora.scaled import ScaledLora, drawings_asked, joint_header, say_other_prediction
from sdxl_mel.models.scheduler import prediction_of
from sdxl_mel.sound.melspec import MelSpec, require_equal


@dataclass(frozen=True)
class Stated:
    """What a person states where neither base nor LoRA does."""

    spec: MelSpec | None = None
    anchor: str | None = None
    clip_skip: int | None = None


@dataclass(frozen=True)
class Trained:
    """What a base and its LoRAs were trained with, and how each asks to be drawn, from the first to be followed on."""

    spec: MelSpec
    anchor: str
    clip_skip: int
    asked: tuple[tuple[str, Drawing], ...] = ()


def trained_with(base: Base, own: LoraHeader, loras: Sequence[ScaledLora], stated: Stated) -> Trained:
    """Return what holds for a base, `own` being what it says of itself, with LoRAs.

    Raises MismatchError where they, or what is stated, differ; InputError where none says what pictures are drawn.
    """
    joint = joint_header(loras)
    _require_same_base(base, loras)
    say_other_prediction(loras, prediction_of(base.scheduler.config), base.name)
    headers = [header for header in (joint, *(lora.header for _, lora, _ in loras), own) if header]
    anchors = (header.anchor for header in headers if header.anchor)
    skips = (header.clip_skip for header in headers if header.spec is not None)
    return Trained(
        spec=_spec(base, own, loras, joint, stated),
        anchor=_agreed("--anchor", stated.anchor, next(anchors, None)) or "",
        clip_skip=_agreed("--clip-skip", stated.clip_skip, next(skips, None)) or 0,
        asked=(*drawings_asked(loras), (base.name, own.drawing)),
    )


def _spec(base: Base, own: LoraHeader, loras: Sequence[ScaledLora], joint: LoraHeader, stated: Stated) -> MelSpec:
    first_lora = next((path for path, lora, _ in loras if lora.header.spec is not None), None)
    sources = {
        f"--lora {first_lora}": joint.spec,
        f"--base {base.name}": base.spec or own.spec,
        "--preset": stated.spec,
    }
    said = {name: spec for name, spec in sources.items() if spec is not None}
    if not said:
        raise InputError(
            f"neither --base {base.name} nor a LoRA says what pictures it draws; state it with --preset NAME"
        )
    (first_name, first), *others = said.items()
    for name, spec in others:
        require_equal(first, spec, first_name, name)
    return first


def _require_same_base(base: Base, loras: Sequence[ScaledLora]) -> None:
    for path, lora, _ in loras:
        differing = [
            part for part, made_for in lora.header.base.items() if base.identity.get(part, made_for) != made_for
        ]
        if differing:
            raise MismatchError(
                f"{path}: trained on another base than {base.name}: its {', '.join(differing)} differ; "
                "give the base it was trained on"
            )


def _agreed(flag: str, given: Any, trained: Any) -> Any:
    """Return a setting that training fixed, or the given one where it fixed none; a contradiction is refused."""
    if given is not None and trained is not None and given != trained:
        raise MismatchError(f"{flag} {given}: the model was trained with {trained!r}; leave {flag} out")
    return trained if trained is not None else given
