"""Base + LoRA and the fused model side by side: how far apart are their outputs?"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdxl_mel.diffusion.conditioning import TextEmbeddings, time_ids, unet_conditions
from sdxl_mel.models.base import open_base
from sdxl_mel.models.family import ADAPTABLE, Part, pooled_width
from sdxl_mel.models.layouts import module_paths
from sdxl_mel.models.lora.fusing import Change, combined_delta
from sdxl_mel.models.lora.scaled import ScaledLora
from sdxl_mel.seeding import torch_generator

LATENTS = 16
TOKENS = 77
TIMESTEP = 500


@torch.no_grad()
def differences(base: str, fused: Path, loras: Sequence[ScaledLora], configs: Path | None) -> dict[str, float]:
    """Return |fused - (base + LoRA)| / |base + LoRA| of every adapted part's output, in fp32 on random inputs."""
    found: dict[str, float] = {}
    for part in ADAPTABLE:
        changes: dict[str, list[Change]] = defaultdict(list)
        for _, lora, scale in loras:
            for (owner, name), module in lora.changes():
                if owner == part:
                    changes[name].append(Change(module, scale))
        if changes:
            adapted = open_base(base, (part,), config=configs).models[part]
            paths = module_paths(adapted, part)
            for name, group in changes.items():
                path, _, kind = name.rpartition(".")
                weight: Any = getattr(adapted.get_submodule(paths[path]), kind)
                weight += combined_delta(weight, group)
            wanted = probe(part, adapted)
            del adapted
            got = probe(part, open_base(fused, (part,), config=configs).models[part])
            found[part] = float((got - wanted).norm() / wanted.norm())
    return found


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
