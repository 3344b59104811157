"""A LoRA out of the difference between a base and a model that was tuned from it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.base import open_checkpoint
from sdxl_mel.models.checkpoint import Checkpoint
from sdxl_mel.models.family import ADAPTABLE
from sdxl_mel.models.header import read_model_header
from sdxl_mel.models.layouts import Param
from sdxl_mel.models.lora.actions import Outcome, outcome_of
from sdxl_mel.models.lora.algebra import Cut, extracted
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.models.lora.names import Module
from sdxl_mel.models.scheduler import prediction_of
from sdxl_mel.progress import track
from sdxl_mel.record import Record
from sdxl_mel.seeding import torch_generator

LINEAR = {
    "unet": (".attentions.",),
    "text_encoder": (".self_attn.", ".mlp."),
    "text_encoder_2": (".self_attn.", ".mlp."),
}
NO_LAYER = (".embeddings.", "text_projection")


def extract_lora(base: str, tuned: str, *, rank: int, layers: str, seed: int, configs: Path | None) -> Outcome:
    """Return the best LoRA of `rank` for tuned - base, and what of the difference it cannot hold.

    Raises MismatchError when the models differ in a shape, InputError when they do not differ.
    """
    before, _ = open_checkpoint(base, configs, whole=False)
    after, source = open_checkpoint(tuned, configs, whole=False)
    params = _shared_params(before, after, base, tuned)
    cuts: dict[Module, Cut] = {}
    left_out: dict[Param, float] = {}
    for param in track(params, len(params), "extract", "tensors"):
        change = after.read(param).float() - before.read(param).float()
        before.forget(param)
        after.forget(param)
        energy = float(change.square().sum())
        if energy > 0 and _is_target(param, change.ndim, layers):
            cuts[param[0], param[1].removesuffix(".weight")] = extracted(
                change, rank, torch_generator(seed, "extract", *param)
            )
        elif energy > 0:
            left_out[param] = energy
    if not cuts:
        raise InputError(f"{tuned}: no layer differs from {base} where a LoRA could; there is nothing to extract")
    settings: dict[str, JsonValue] = {"base": Path(base).name, "tuned": Path(tuned).name, "rank": rank}
    inputs = {
        f"{name} {part}": model.identity(part)
        for name, model in (("base", before), ("tuned", after))
        for part in ADAPTABLE
        if part in before.architecture.family.parts
    }
    record = Record(stage="lora extract", settings={**settings, "layers": layers, "seed": seed}, inputs=inputs)
    header = read_model_header(Path(tuned)) or LoraHeader()
    prediction = prediction_of(source.scheduler_config)
    header = replace(header, base={}, record=record, architecture=before.architecture, prediction=prediction)
    lines = [f"{len(cuts)} modules of rank up to {rank}", *_left_out(left_out)]
    return outcome_of(cuts, header, lines)


def _left_out(energies: Mapping[Param, float]) -> list[str]:
    if not energies:
        return []
    _, largest = max((energy, ".".join(param)) for param, energy in energies.items())
    return [f"{len(energies)} changed tensors are not among the layers chosen, the most changed is {largest}"]


def _is_target(param: Param, ndim: int, layers: str) -> bool:
    part, name = param
    if not name.endswith(".weight") or ndim not in (2, 4) or any(mark in name for mark in NO_LAYER):
        return False
    return (layers == "all" and part == "unet") or any(mark in name for mark in LINEAR[part])


def _shared_params(before: Checkpoint, after: Checkpoint, base: str, tuned: str) -> list[Param]:
    """Return the tensors of the UNet and the text encoders, which must be the same ones in both."""
    ours, theirs = ({p: c.type_of(p).shape for p in c.places if p[0] in ADAPTABLE} for c in (before, after))
    differing = [param for param in ours.keys() | theirs.keys() if ours.get(param) != theirs.get(param)]
    if differing:
        raise MismatchError(
            f"{tuned} and {base} are not of one architecture: {len(differing)} tensors differ in shape, first "
            f"{'.'.join(min(differing))}; give the base it was tuned from"
        )
    return sorted(ours)
