"""Base + LoRAs as one model: what it says of itself, its precision, and its tensors, made when they are written."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.files.tensors import TensorFile, TensorType
from sdxl_mel.models.checkpoint import Checkpoint
from sdxl_mel.models.folder import Folder
from sdxl_mel.models.header import read_model_header
from sdxl_mel.models.layouts import Param
from sdxl_mel.models.lora.file import Alpha, ScaledLora, input_hashes, joint_header
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.models.lora.module import Change, Loss, fuse_into
from sdxl_mel.models.single_file import SPEC_KEY
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import MelSpec, require_equal


def fused_header(
    loras: Sequence[ScaledLora], checkpoint: Checkpoint, base: str, dtype: str, alpha: Alpha | None
) -> LoraHeader:
    """Return what the LoRAs say, checked against the base's spec, its guidance, and the record of the fusion.

    `alpha` is what was stated for LoRA files that hold none; the record has it, and the hashes of base and LoRAs.
    Raises MismatchError when any two specs differ.
    """
    header = joint_header(loras)
    own = _spec_of(checkpoint)
    if own is not None and header.spec is not None:
        require_equal(own, header.spec, base, str(loras[0].path))
    record = Record(
        stage="fuse",
        settings={
            "base": Path(base).name,
            "scale": [scale for _, _, scale in loras],
            "dtype": dtype,
            "alpha": alpha,
        },
        inputs={f"base {part}": checkpoint.identity(part) for part in checkpoint.architecture.family.parts}
        | input_hashes(loras),
    )
    before = read_model_header(checkpoint.path)
    return replace(
        header,
        spec=header.spec or own,
        record=record,
        architecture=checkpoint.architecture,
        **vars(header.drawing if before is None else header.drawing.filled(before.drawing)),
    )


def _spec_of(checkpoint: Checkpoint) -> MelSpec | None:
    if not checkpoint.single:
        return Folder(checkpoint.path).spec
    text = TensorFile(checkpoint.path).metadata.get(SPEC_KEY)
    return MelSpec.from_json(text, str(checkpoint.path)) if text else None


DTYPES = {"fp16": torch.float16, "fp32": torch.float32, "bf16": torch.bfloat16}


def chosen_dtype(checkpoint: Checkpoint, wanted: str | None, force_bf16: bool) -> torch.dtype:
    """Return the precision to write: the one asked for, else the base's own, fp16 for a bf16 base.

    Raises InputError for bf16 unless it is forced.
    """
    if wanted == "bf16" and not force_bf16:
        raise InputError(
            "--dtype bf16 loses about half of a small LoRA (45 % of a change of 1e-4); take fp16 or fp32, or insist "
            "with --force-bf16"
        )
    if wanted is not None:
        return DTYPES[wanted]
    own = checkpoint.type_of(("unet", "conv_in.weight")).dtype
    return torch.float32 if own in (torch.float32, torch.float64) else torch.float16


def short_name(dtype: torch.dtype) -> str:
    """Return fp16, fp32 or bf16."""
    return next(name for name, known in DTYPES.items() if known == dtype)


Changes = Mapping[Param, Sequence[Change]]
SHOWN = 3


def match(loras: Sequence[ScaledLora], checkpoint: Checkpoint, base: str) -> Changes:
    """Return the changes of every weight. Raises MismatchError for a module that the base has not in that shape."""
    changes: dict[Param, list[Change]] = defaultdict(list)
    for path, lora, scale in loras:
        lora.require_family(checkpoint.architecture.family, str(path), base)
        wrong = []
        for (part, name), module in lora.modules.items():
            param: Param = (part, f"{name}.weight")
            there = checkpoint.type_of(param).shape if param in checkpoint.places else None
            if there != module.weight_shape:
                wrong.append(f"{part}.{name} ({_explained(there, module.weight_shape)})")
            changes[param].append(Change(module, scale))
        if wrong:
            raise MismatchError(
                f"{path}: {len(wrong)} of {len(lora.modules)} modules do not fit {base}: {', '.join(wrong[:SHOWN])}"
                f"{', ...' if len(wrong) > SHOWN else ''}; give the base it was trained on or another of its kind"
            )
    return changes


def _explained(there: tuple[int, ...] | None, wanted: tuple[int, ...]) -> str:
    shape = " x ".join(map(str, wanted))
    return f"for a weight of {shape}, the base has {' x '.join(map(str, there))}" if there else "not in the base"


class FusedWeights:
    """The tensors of base + LoRAs in `dtype`; the VAE and integers stay as they are."""

    def __init__(self, checkpoint: Checkpoint, changes: Changes, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._changes = changes
        self._losses: dict[Param, Loss] = {}
        self.types = {param: _target(param, checkpoint.type_of(param), dtype) for param in checkpoint.places}

    def put(self, param: Param, out: Tensor) -> None:
        """Put one tensor into `out`; the base's pages are let go. Several threads may ask at once."""
        weight = self._checkpoint.read(param)
        assert out.shape == weight.shape, param
        if param in self._changes:
            self._losses[param] = loss = fuse_into(out, weight, self._changes[param])
            if not isfinite(loss.error):
                raise InputError(
                    f"{'.'.join(param)}: base + LoRA is not finite in {out.dtype}; lower --scale or write --dtype fp32"
                )
        else:
            out.copy_(weight)
        self._checkpoint.forget(param)

    def total(self) -> Loss:
        """Return the loss over all tensors made so far."""
        return _sum(self._in_order().values())

    def by_block(self) -> dict[str, tuple[int, Loss]]:
        """Return the number of changed tensors and the loss of every block, in the order of the model."""
        blocks: dict[str, list[Loss]] = defaultdict(list)
        for (part, name), loss in self._in_order().items():
            blocks[_block(part, name)].append(loss)
        return {block: (len(losses), _sum(losses)) for block, losses in sorted(blocks.items())}

    def _in_order(self) -> dict[Param, Loss]:
        """Return the losses in an order that does not depend on which thread was first, as their sums do."""
        return {param: self._losses[param] for param in self._changes if param in self._losses}


def _sum(losses: Iterable[Loss]) -> Loss:
    total = Loss()
    for loss in losses:
        total = total.plus(loss)
    return total


def _target(param: Param, kind: TensorType, dtype: torch.dtype) -> TensorType:
    kept = param[0] == "vae" or not kind.dtype.is_floating_point
    return kind if kept else TensorType(dtype, kind.shape)


def _block(part: str, name: str) -> str:
    """Return the block's name: a UNet's down_blocks.1, or a text encoder as a whole."""
    if part != "unet":
        return part
    first, second, *_ = name.split(".")
    return f"{first}.{second}" if second.isdigit() else first
