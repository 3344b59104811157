"""The base model with its adapters, set up to be trained."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdxl_mel.diffusion.conditioning import TextEmbeddings, unet_conditions
from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.base import Base
from sdxl_mel.models.family import Part
from sdxl_mel.models.lora.adapters import Adapters, attach
from sdxl_mel.models.lora.file import Dialect, Lora, LoraHeader, read_lora, write_lora
from sdxl_mel.models.text_encoding import encode_prompts
from sdxl_mel.sound.melspec import MelSpec, require_equal
from sdxl_mel.training.batches import Batch
from sdxl_mel.training.lora_settings import LoraAdapterSettings, LoraOptimizerSettings
from sdxl_mel.training.optimizers import OPTIMIZERS
from sdxl_mel.training.settings import HardwareSettings

ENCODER_SHARE = 0.5
"""Text encoders learn at half the UNet's rate unless told otherwise; guides agree on 0.1 to 0.5."""
COMPILED_BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D")


class Computing(Protocol):
    """What computes on a device in a dtype."""

    @property
    def device(self) -> torch.device:
        """Return the device."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype."""


@dataclass
class Model:
    """What training needs of a base, and the adapters on it.

    `time_ids` (6,) are SDXL's sizes, float32, None for a family without.
    """

    unet: Any
    adapters: Adapters
    time_ids: torch.Tensor | None
    encoders: Any = None
    clip_skip: int = 0
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def predict(self, batch: Batch) -> torch.Tensor:
        """Return what the UNet predicts for a batch on its device and in its dtype."""
        text = self.encode(batch.text) if isinstance(batch.text, list) else batch.text
        return self.predict_at(batch.noisy, batch.timesteps, text)

    def predict_at(self, latents: torch.Tensor, timesteps: torch.Tensor, text: TextEmbeddings) -> torch.Tensor:
        """Return what the UNet predicts for noisy latents, all in its dtype."""
        conditions = unet_conditions(text, self.time_ids)
        return self.unet(latents, timesteps, **conditions, return_dict=False)[0]

    @torch.no_grad()
    def predict_of_base(self, batch: Batch) -> torch.Tensor:
        """Return what the base predicts for a batch: the same with every adapter off, in the text encoders too."""
        with self.adapters.switched_off():
            return self.predict(batch)

    def encode(self, captions: Sequence[str]) -> TextEmbeddings:
        """Return the embeddings of captions in the dtype of the UNet, with gradients where encoders are trained."""
        made = encode_prompts(self.encoders, captions, self.clip_skip)
        return TextEmbeddings(*(each.to(self.dtype) for each in made))


def build_model(
    base: Base,
    settings: LoraAdapterSettings,
    hardware: HardwareSettings,
    *,
    clip_skip: int,
    size: tuple[int, int],
    device: torch.device,
    seed: int,
) -> Model:
    """Put adapters on an open base and prepare it; `size` is (width, height) of a tile in pixels."""
    unet = prepared_unet(base.unet, hardware, device)
    put = partial(
        attach,
        rank=settings.rank,
        alpha=settings.alpha_or_rank,
        rslora=settings.rslora,
        dora=settings.dora,
        seed=seed,
    )
    adapters = put({"unet": unet}, targets=settings.targets, rank_patterns=settings.rank_patterns)
    if settings.text_encoders:
        encoders = prepared_encoders(base, settings.text_encoders, device)
        adapters = Adapters(adapters.layers | put(encoders, targets=settings.text_targets).layers)
    time_ids = base.family.time_ids(size[1], size[0])
    return Model(
        unet=unet,
        adapters=adapters,
        time_ids=None if time_ids is None else time_ids.to(device),
        encoders=base if settings.text_encoders else None,
        clip_skip=clip_skip,
        dtype=base.unet.dtype,
        device=device,
    )


def start_from(path: Path, adapters: Adapters, base: Base, spec: MelSpec, identity: Mapping[str, str]) -> None:
    """Load a LoRA to continue. Raises MismatchError unless it belongs to this base and spec and has these layers."""
    lora = read_lora(path)
    lora.require_low_rank(str(path))
    lora.require_family(base.family, str(path), base.name)
    if lora.header.spec is not None:
        require_equal(lora.header.spec, spec, str(path), "the run")
    other = [part for part, made_for in lora.header.base.items() if identity.get(part) != made_for]
    if other:
        raise MismatchError(f"{path}: trained on another {' and '.join(other)}; give the base it was trained on")
    adapters.load(lora.modules, str(path))


def write_adapters(adapters: Adapters, header: LoraHeader, path: Path, step: int, dialect: Dialect) -> None:
    """Write adapters to a file that says after how many steps they are what they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = replace(header, training={**header.training, "steps": str(step)})
    write_lora(path, Lora(adapters.to_modules(), header), dialect)


def prepared_unet(unet: Any, hardware: HardwareSettings, device: torch.device) -> Any:
    """Return the UNet on its device and in its layout, in training mode (which gradient checkpointing asks for)."""
    unet.to(device)
    if hardware.channels_last if hardware.channels_last is not None else device.type == "cuda":
        unet.to(memory_format=torch.channels_last)
    unet.train()
    if hardware.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet


def prepared_encoders(base: Base, parts: Sequence[Part], device: torch.device) -> dict[Part, Any]:
    """Return some text encoders of a base by part; all are put on the device. Raises InputError for one it has not."""
    absent = sorted(set(parts) - set(base.family.parts))
    if absent:
        raise InputError(f"adapter.text_encoders: {base.family.title} has no {', '.join(absent)}; leave it out")
    for encoder in base.text_encoders:
        encoder.requires_grad_(False).to(device)
    return {part: base.models[part] for part in parts}


def compile_blocks(unet: nn.Module) -> None:
    """Compile each block by itself: all blocks of a kind share one compilation, and peft's Python stays outside."""
    for module in unet.modules():
        if type(module).__name__ in COMPILED_BLOCKS:
            module.compile()


def quick_attention(model: Computing) -> AbstractContextManager[None]:
    """Return a context for forward and backward passes in which attention is computed the quickest way.

    The fused kernel's backward pass in bfloat16 on a CPU takes a third of a step; plain products take a thirtieth.
    """
    slow = model.device.type == "cpu" and model.dtype == torch.bfloat16
    return sdpa_kernel(SDPBackend.MATH) if slow else nullcontext()


def parameter_groups(adapters: Adapters, settings: LoraOptimizerSettings) -> list[dict[str, Any]]:
    """Return optimizer groups: one per rate, with `up` matrices lora_plus times as fast."""
    encoder = settings.rate * (1.0 if OPTIMIZERS[settings.name].finds_its_rate else ENCODER_SHARE)
    rates = {
        "unet": settings.rate,
        "text_encoder": settings.text_encoder_rate or encoder,
        "text_encoder_2": settings.text_encoder_2_rate or encoder,
    }
    groups: dict[float, list[Any]] = {}
    for name, parameter in adapters.named_parameters():
        factor = settings.lora_plus if name.endswith(".up") else 1.0
        groups.setdefault(rates[name.partition(".")[0]] * factor, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]
