"""Several LoRAs with strengths: how people state them, what they change together, and what they ask for."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from sdxl_mel.config import Skipped
from sdxl_mel.diffusion.options import Prediction
from sdxl_mel.diffusion.samplers import Drawing, is_few_step
from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.family import Family
from sdxl_mel.models.layouts import Param
from sdxl_mel.models.lora.assemble import Alpha
from sdxl_mel.models.lora.file import Lora, read_lora
from sdxl_mel.models.lora.foreign import some
from sdxl_mel.models.lora.fusing import Change
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.progress import log
from sdxl_mel.record import sha256_file
from sdxl_mel.sound.melspec import require_equal


class ScaledLora(NamedTuple):
    """A LoRA, the file it came from, and its strength."""

    path: Path
    lora: Lora
    scale: float


def read_loras(files: Sequence[str], scales: Sequence[float] = (), alpha: Alpha | None = None) -> list[ScaledLora]:
    """Read LoRAs with strengths from FILE:0.8 or from `scales`; see `paired_scales`."""
    return [ScaledLora(path, read_lora(path, alpha), scale) for path, scale in paired_scales(files, scales)]


def in_unet(loras: Sequence[ScaledLora]) -> list[ScaledLora]:
    """Return what LoRAs change of the UNet alone."""
    return [each._replace(lora=each.lora.only(lambda part, _: part == "unet")) for each in loras]


def left_out_of(loras: Sequence[ScaledLora]) -> tuple[Skipped, ...]:
    """Return what the files of the LoRAs hold that is not used."""
    return tuple(Skipped(what=str(path), why=why) for path, lora, _ in loras for why in lora.unused)


def notes_on(loras: Sequence[ScaledLora]) -> tuple[str, ...]:
    """Return what was taken for granted when the LoRAs were read."""
    return tuple(f"{path}: {note}" for path, lora, _ in loras for note in lora.notes)


def changes_of(
    loras: Sequence[ScaledLora], shape_of: Callable[[Param], Sequence[int] | None], family: Family, base: str
) -> dict[Param, list[Change]]:
    """Return the changes of every parameter of a base, `shape_of` of which says its shape, or None where it has none.

    Raises MismatchError for a LoRA of another family, or with a change that the base has no such parameter for.
    """
    changes: dict[Param, list[Change]] = defaultdict(list)
    for path, lora, scale in loras:
        lora.require_family(family, str(path), base)
        wrong, total = [], 0
        for param, module in lora.changes():
            total += 1
            shape = shape_of(param)
            if shape is None or not module.fits(tuple(shape)):
                wanted = " x ".join(map(str, module.weight_shape if isinstance(module, LoraModule) else module.size))
                there = f"the base has {' x '.join(map(str, shape))}" if shape is not None else "not in the base"
                name = ".".join(param).removesuffix(".weight")
                wrong.append(f"{name} ({there if shape is None else f'for a weight of {wanted}, {there}'})")
            changes[param].append(Change(module, scale))
        if wrong:
            raise MismatchError(
                f"{path}: {len(wrong)} of {total} modules do not fit {base}: {some(wrong)}; give the base it was "
                "trained on or another of its kind"
            )
    return changes


def input_hashes(loras: Sequence[ScaledLora]) -> dict[str, str]:
    """Return the SHA-256 of every file of the LoRAs, for a record; the number keeps two of one name apart."""
    return {
        f"{number:04} {file.relative_to(path.parent).as_posix()}": sha256_file(file)
        for number, (path, _, _) in enumerate(loras, 1)
        for file in (sorted(path.rglob("*.safetensors")) if path.is_dir() else [path])
    }


def paired_scales(files: Sequence[str], scales: Sequence[float] = ()) -> list[tuple[Path, float]]:
    """Return each file and its strength: FILE:0.8, or one of `scales` for each file in the same order, or 1.

    Raises InputError when the counts differ, both ways are used, or a strength is not finite.
    """
    split = [_split(text) for text in files]
    if scales and any(scale is not None for _, scale in split):
        raise InputError(
            "a scale is given both as FILE:SCALE and as a setting (--scale, --lora-scale); use one of the two"
        )
    if scales and len(scales) != len(split):
        raise InputError(
            f"{len(scales)} --scale for {len(split)} --lora; give one for each in the same order, or none for 1"
        )
    chosen = list(scales) or [1.0 if scale is None else scale for _, scale in split]
    for (path, _), scale in zip(split, chosen):
        if not isfinite(scale):
            raise InputError(f"{path}: a scale of {scale} is no strength; give a number such as 0.8")
    return [(path, scale) for (path, _), scale in zip(split, chosen)]


def _split(text: str) -> tuple[Path, float | None]:
    name, colon, number = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text), None
    try:
        return Path(name), float(number)
    except ValueError:
        return Path(text), None


def joint_header(loras: Sequence[ScaledLora]) -> LoraHeader:
    """Return the header of all LoRAs together: that of the first which knows its spec; an empty one of no LoRA.

    Raises MismatchError when two of them differ in spec or clip skip. Anchors may differ; the first one counts. How
    to draw is what the first of `drawings_asked` asks for.
    """
    drawing = reduce(Drawing.filled, (asked for _, asked in drawings_asked(loras)), Drawing())
    ours = [(str(path), lora.header) for path, lora, _ in loras if lora.header.spec is not None]
    if not ours:
        own = loras[0].lora.header if loras else LoraHeader()
        return LoraHeader(architecture=own.architecture, drawing=drawing, prediction=own.prediction)
    first_name, first = ours[0]
    for name, header in ours[1:]:
        assert header.spec is not None and first.spec is not None
        require_equal(first.spec, header.spec, first_name, name)
        if header.clip_skip != first.clip_skip:
            raise MismatchError(
                f"{first_name} was trained with clip skip {first.clip_skip}, {name} with {header.clip_skip}; "
                "they cannot share a text encoder"
            )
    return replace(first, training={}, record=None, drawing=drawing)


def say_other_prediction(loras: Sequence[ScaledLora], prediction: Prediction, base: str) -> None:
    """Say which LoRAs were trained on a base that predicts v, where this one predicts epsilon.

    The reverse is not said: many trainers call every LoRA's base an epsilon one.
    """
    for path, lora, _ in loras:
        if lora.header.prediction == "v_prediction" and prediction == "epsilon":
            log(
                f"{path}: trained on a base that predicts v, and {base} predicts epsilon: expect noise; give a base "
                "that predicts v (a single file says so by a tensor v_pred)"
            )


def drawings_asked(loras: Sequence[ScaledLora]) -> list[tuple[str, Drawing]]:
    """Return the file of each LoRA and how it asks to be drawn, from the first to be followed on.

    A few-step LoRA decides, whatever guidance was found good for another beside it.
    """
    asked = [(str(path), lora.header.drawing) for path, lora, _ in loras]
    return sorted(asked, key=lambda each: not is_few_step(each[1]))
