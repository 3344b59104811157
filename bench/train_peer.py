"""The step of diffusers' example text_to_image_lora_sdxl.py, written anew: what it does at every step, in its order.

It encodes pictures with a float32 VAE and captions with both text encoders at every step, adds LoRA by
`unet.add_adapter` in the dtype of the base, runs under autocast where precision is mixed, and reads the loss at
every step. Decoding and scaling of the pictures, which it also does, is left out in its favour.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from peft import LoraConfig
from torch.nn import functional as F

from bench.train_models import TOKENS, Models, Size

TARGETS = ("to_k", "to_q", "to_v", "to_out.0")
LINEAR = (*TARGETS, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
"""Its own layers, and all Linear of the transformers."""


def peer_step(
    models: Models, size: Size, device: torch.device, dtype: torch.dtype, targets: Sequence[str] = TARGETS
) -> Callable[[], None]:
    """Return a function that takes one step."""
    unet = models.unet
    unet.add_adapter(
        LoraConfig(r=size.rank, lora_alpha=size.rank, init_lora_weights="gaussian", target_modules=list(targets))
    )
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    alphas = models.scheduler.alphas_cumprod.to(device)
    generator = torch.Generator(device).manual_seed(0)
    width, height = size.spec.size
    pixels = torch.rand(size.batch, 3, height, width, device=device) * 2 - 1
    ids = torch.randint(0, 1000, (size.batch, TOKENS), device=device)
    mixed = dtype != torch.float32

    def step() -> None:
        latents = models.vae.encode(pixels).latent_dist.sample() * models.vae.config.scaling_factor
        latents = latents.to(dtype)
        noise = torch.randn(latents.shape, device=device, dtype=dtype, generator=generator)
        timesteps = torch.randint(0, 1000, (size.batch,), device=device, generator=generator)
        abar = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = (abar.sqrt() * latents + (1 - abar).sqrt() * noise).to(dtype)
        sizes = torch.cat([_sizes(height, width, device, dtype) for _ in range(size.batch)])
        with torch.autocast(device.type, dtype) if mixed else nullcontext():
            hidden, pooled = _encode(models, ids)
            conditions = {"time_ids": sizes, "text_embeds": pooled}
            prediction = unet(noisy, timesteps, hidden, added_cond_kwargs=conditions, return_dict=False)[0]
        loss = F.mse_loss(prediction.float(), noise.float(), reduction="mean")
        loss.repeat(size.batch).mean().item()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.detach().item()

    return step


def _encode(models: Models, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    outputs: list[Any] = [
        encoder(ids, output_hidden_states=True) for encoder in (models.text_encoder, models.text_encoder_2)
    ]
    return torch.cat([output.hidden_states[-2] for output in outputs], dim=-1), outputs[1][0]


def _sizes(height: int, width: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor([[height, width, 0, 0, height, width]], device=device, dtype=dtype)
