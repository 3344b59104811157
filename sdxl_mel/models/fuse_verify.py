"""Base + LoRA and the fused model side by side: how far apart are their outputs?"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdxl_mel.diffusion.conditioning import TextEmbeddings, time_ids, unet_conditions
from sdxl_mel.errors import InputError
from sdxl_mel.models.base import open_base
from sdxl_mel.models.family import ADAPTABLE, Part, pooled_width
from sdxl_mel.models.lora.adapters import attach_lora
from sdxl_mel.models.lora.file import Lora, ScaledLora
from sdxl_mel.models.lora.module import Change, LoraModule, concatenated
from sdxl_mel.models.lora.names import Module
from sdxl_mel.seeding import torch_generator

LATENTS = 16
TOKENS = 77
TIMESTEP = 500


def differences(base: str, fused: Path, loras: Sequence[ScaledLora], configs: Path | None) -> dict[str, float]:
    """Return |fused - (base + LoRA)| / |base + LoRA| of every adapted part's output, in fp32 on random inputs."""
    whole = joined(loras)
    found: dict[str, float] = {}
    for part in ADAPTABLE:
        own = Lora({key: module for key, module in whole.modules.items() if key[0] == part}, whole.header)
        if own.modules:
            adapted = open_base(base, (part,), config=configs)
            attach_lora(adapted, own)
            wanted = probe(part, adapted.models[part])
            del adapted
            got = probe(part, open_base(fused, (part,), config=configs).models[part])
            found[part] = float((got - wanted).norm() / wanted.norm())
    return found


def joined(loras: Sequence[ScaledLora]) -> Lora:
    """Return one LoRA that does what all do, each at its strength.

    Raises InputError for a DoRA among several or at another strength: its magnitudes do not add up.
    """
    groups: dict[Module, list[Change]] = defaultdict(list)
    for path, lora, scale in loras:
        for key, module in lora.modules.items():
            if module.magnitude is not None and (len(loras) > 1 or scale != 1):
                raise InputError(f"{path}: a DoRA is verified only alone and at scale 1; leave --verify out")
            groups[key].append(Change(module, scale))
    return Lora({key: _one(group) for key, group in groups.items()}, loras[0].lora.header)


def _one(group: Sequence[Change]) -> LoraModule:
    alone = len(group) == 1 and group[0].scale == 1
    return group[0].module if alone else concatenated(group)


@torch.inference_mode()
def probe(part: Part, model: nn.Module) -> Tensor:
    """Return a part's output for inputs that depend on its config alone."""
    generator = torch_generator(0, "verify", part)
    return _probe_unet(model, generator) if part == "unet" else _probe_text(model, generator)


def _probe_unet(unet: Any, generator: torch.Generator) -> Tensor:
    config = unet.config
    pooled = torch.randn(1, pooled_width(config), generator=generator)
    latents = torch.randn(1, config.in_channels, LATENTS, LATENTS, generator=generator)
    text = TextEmbeddings(torch.randn(1, TOKENS, config.cross_attention_dim, generator=generator), pooled)
    sizes = time_ids(8 * LATENTS, 8 * LATENTS) if pooled.numel() else None
    return unet(latents, TIMESTEP, **unet_conditions(text, sizes)).sample.flatten()


def _probe_text(encoder: Any, generator: torch.Generator) -> Tensor:
    """Return the last hidden states but one, which SDXL reads, and the last ones after the norm, which SD 1.5 reads."""
    tokens = torch.randint(0, encoder.config.vocab_size, (1, TOKENS), generator=generator)
    tokens[:, -1] = encoder.config.eos_token_id
    output = encoder(tokens, output_hidden_states=True)
    return torch.cat([output.hidden_states[-2].flatten(), output[0].flatten()])
