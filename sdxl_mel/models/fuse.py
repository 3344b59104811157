"""Base + LoRAs written as one checkpoint, a diffusers folder or a single file; tensors are made as they are written."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from math import isfinite
from pathlib import Path
from threading import Lock

import torch
from pydantic import JsonValue
from torch import Tensor

from sdxl_mel.config import Skipped
from sdxl_mel.errors import InputError
from sdxl_mel.files.tensors import TensorType
from sdxl_mel.models.base import PartSource, Source, find_vae, open_checkpoint
from sdxl_mel.models.checkpoint import Checkpoint
from sdxl_mel.models.checkpoint_writer import require_space, write_folder, write_single_file
from sdxl_mel.models.family import DTYPES, Config, Part, precision_of
from sdxl_mel.models.folder import Folder, json_bytes
from sdxl_mel.models.fuse_verify import differences
from sdxl_mel.models.header import header_files, header_metadata, read_model_header
from sdxl_mel.models.layouts import Param
from sdxl_mel.models.lora.file import Alpha
from sdxl_mel.models.lora.fusing import Change, Loss, fuse_into
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.models.lora.scaled import (
    ScaledLora,
    changes_of,
    input_hashes,
    joint_header,
    left_out_of,
    notes_on,
    read_loras,
    say_other_prediction,
)
from sdxl_mel.models.scheduler import marks_of, prediction_of
from sdxl_mel.models.single_file import configs_metadata
from sdxl_mel.options import Precision
from sdxl_mel.progress import progress
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import require_equal

SINGLE_FILE = ".safetensors"
UNKNOWN = 64 * "0"
"""Stands for a hash that is not known yet."""
Changes = Mapping[Param, Sequence[Change]]


@dataclass(frozen=True)
class Fused:
    """What was written: its precision, what rounding cost, by block and in all, and what the check found by part.

    `notes` and `left_out` are what is to be said of the LoRAs, and what of their files is not used.
    """

    dtype: str
    loras: tuple[ScaledLora, ...]
    blocks: Mapping[str, tuple[int, Loss]]
    total: Loss
    differences: Mapping[str, float]
    notes: tuple[str, ...]
    left_out: tuple[Skipped, ...]


def fuse(
    base: str,
    files: Sequence[str],
    out: Path,
    *,
    scales: Sequence[float] = (),
    dtype: Precision | None = None,
    vae: str | None = None,
    verify: bool = False,
    alpha: Alpha | None = None,
    configs: Path | None = None,
    force_bf16: bool = False,
) -> Fused:
    """Add LoRAs to a base and stream the sum to a folder, or to a single file where `out` is NAME.safetensors.

    The strength of a LoRA is stated as FILE:0.8 or by `scales`, one a file; `alpha` is that of files that hold none.
    `dtype` None is the base's own, fp16 for a bf16 base; `vae` replaces the base's own VAE. With `verify` base + LoRA
    and the result are run side by side. Raises InputError for an `out` that is there,
    MismatchError for a LoRA of another model, ResourceError where there is no room.
    """
    _refuse_existing(out)
    single = out.suffix == SINGLE_FILE
    loras = read_loras(files, scales, alpha)
    checkpoint, source = open_checkpoint(base, configs, whole=not single)
    replaced: dict[str, Config] = {}
    if vae is not None:
        checkpoint, config = with_vae(checkpoint, find_vae(vae, source))
        replaced["vae/config.json"] = config
    chosen = chosen_dtype(checkpoint, dtype, force_bf16)
    shapes = {param: checkpoint.type_of(param).shape for param in checkpoint.places}
    changes = changes_of(loras, shapes.get, checkpoint.architecture.family, base)
    weights = FusedWeights(checkpoint, changes, chosen)
    header = fused_header(loras, checkpoint, source, base)
    require_space(out, weights.types)
    identity = dict.fromkeys(checkpoint.architecture.family.parts, UNKNOWN)
    settings: dict[str, JsonValue] = {
        "base": Path(base).name,
        "scale": [scale for _, _, scale in loras],
        "dtype": precision_of(chosen),
        "alpha": alpha,
    }

    hashes = input_hashes(loras)

    def recorded() -> LoraHeader:
        inputs = {f"base {part}": sha256 for part, sha256 in identity.items()} | hashes
        return replace(header, record=Record(stage="fuse", settings=settings, inputs=inputs))

    # A hash takes as long as a copy: it is made while the tensors are written, and put where UNKNOWN stood.
    hashing = {part: partial(_set_identity, identity, checkpoint, part) for part in identity}
    with progress(len(weights.types), "fuse", "tensors") as ticker:
        counting = Lock()

        def put(param: Param, place: Tensor) -> None:
            weights.put(param, place)
            with counting:
                ticker.advance()

        if single:
            carried = configs_metadata(source, replaced)
            write_single_file(
                out,
                checkpoint,
                weights.types,
                put,
                header_metadata(recorded(), out.stem) | carried,
                marks=marks_of(source.scheduler_config),
                beside=[*hashing.values()],
                final=lambda: header_metadata(recorded(), out.stem) | carried,
            )
        else:
            small = source.small_files() | {name: json_bytes(each) for name, each in replaced.items()}
            write_folder(
                out,
                checkpoint,
                weights.types,
                put,
                small,
                beside=hashing,
                final=lambda: header_files(recorded()),
            )
    return Fused(
        dtype=precision_of(chosen),
        loras=tuple(loras),
        blocks=weights.by_block(),
        total=weights.total(),
        differences=differences(base, out, loras, configs) if verify else {},
        notes=notes_on(loras),
        left_out=left_out_of(loras),
    )


def _set_identity(identity: dict[Part, str], checkpoint: Checkpoint, part: Part) -> None:
    identity[part] = checkpoint.identity(part)


def with_vae(checkpoint: Checkpoint, vae: PartSource) -> tuple[Checkpoint, Config]:
    """Return a base's tensors with those of another VAE, and the config of that; a folder then has diffusers' names."""
    if isinstance(vae, Folder):
        vae.require_parts(("vae",))
    places = {param: place for param, place in checkpoint.places.items() if param[0] != "vae"}
    config = vae.config("vae")
    assert config is not None
    return replace(checkpoint, places=places | vae.checkpoint(("vae",)).places, single=True), config


def _refuse_existing(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out}: is there already; delete it or choose another --out")
    if out.suffix != SINGLE_FILE and out.suffix in (".ckpt", ".pt", ".bin"):
        raise InputError(f"{out}: pickles are not written; choose NAME.safetensors or a folder")


def fused_header(loras: Sequence[ScaledLora], checkpoint: Checkpoint, source: Source, base: str) -> LoraHeader:
    """Return what the LoRAs say, checked against the base's spec, and its guidance.

    Raises MismatchError when any two specs differ.
    """
    header = joint_header(loras)
    own = source.spec
    if own is not None and header.spec is not None:
        require_equal(own, header.spec, base, str(loras[0].path))
    say_other_prediction(loras, prediction_of(source.scheduler_config), base)
    before = read_model_header(checkpoint.path)
    return replace(
        header,
        spec=header.spec or own,
        architecture=checkpoint.architecture,
        drawing=header.drawing if before is None else header.drawing.filled(before.drawing),
        prediction=prediction_of(source.scheduler_config),
    )


def chosen_dtype(checkpoint: Checkpoint, wanted: Precision | None, force_bf16: bool) -> torch.dtype:
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


class FusedWeights:
    """The tensors of base + LoRAs in `dtype`; the VAE and integers stay as they are."""

    def __init__(self, checkpoint: Checkpoint, changes: Changes, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._changes = changes
        self._losses: dict[Param, Loss] = {}
        self.types = {param: checkpoint.type_of(param) for param in checkpoint.places}
        for (part, name), kind in self.types.items():
            if part != "vae" and kind.dtype.is_floating_point:
                self.types[part, name] = TensorType(dtype, kind.shape)

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
        return reduce(Loss.plus, self._in_order().values(), Loss())

    def by_block(self) -> dict[str, tuple[int, Loss]]:
        """Return the number of changed tensors and the loss of every block, in the order of the model."""
        blocks: dict[str, list[Loss]] = defaultdict(list)
        for (part, name), loss in self._in_order().items():
            blocks[_block(part, name)].append(loss)
        return {block: (len(losses), reduce(Loss.plus, losses, Loss())) for block, losses in sorted(blocks.items())}

    def _in_order(self) -> dict[Param, Loss]:
        """Return the losses in an order that does not depend on which thread was first, as their sums do."""
        return {param: self._losses[param] for param in self._changes if param in self._losses}


def _block(part: str, name: str) -> str:
    """Return the block's name: a UNet's down_blocks.1, or a text encoder as a whole."""
    if part != "unet":
        return part
    first, second, *_ = name.split(".")
    return f"{first}.{second}" if second.isdigit() else first
