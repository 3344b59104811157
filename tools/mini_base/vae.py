"""Training the VAE on crops of the pictures, and judging its round trip."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from sdxl_mel.seeding import derive_seed, numpy_generator
from sdxl_mel.sound.pixels import dequantise, mel_of_values, quantise
from tools.mini_base.data import SPEC, Pictures
from tools.mini_base.networks import new_vae
from tools.mini_base.training import Schedule, Training

CROP = 128
FLOOR_DB = 60.0
"""Mel values more than this under the loudest of a tile count as equal."""
SCALING_FACTOR = 0.13025
MSE_WEIGHT, SLOPE_WEIGHT, KL_WEIGHT = 2.0, 0.3, 5e-4
DARK_WEIGHT = 3.0
"""The law is flat where it is dark: an error there is up to this many times more decibels."""


def train_vae(
    pictures: Pictures, held_out: Pictures, schedule: Schedule, batch: int, checkpoint: Path
) -> AutoencoderKL:
    """Return the trained VAE (moving average), its latents brought to SDXL's scale."""
    torch.manual_seed(derive_seed(0, "vae weights"))
    training = Training(new_vae().to(memory_format=torch.channels_last), schedule, checkpoint)

    def loss_of(network: torch.nn.Module, step: int, part: int) -> torch.Tensor:
        generator = numpy_generator(0, "vae batch", step, part)
        crops = _crops(pictures, batch // schedule.threads, generator)
        noise = torch.from_numpy(generator.standard_normal((len(crops), 4, CROP // 8, CROP // 8), dtype=np.float32))
        with torch.autocast("cpu", torch.bfloat16):
            posterior = network.encode(crops).latent_dist
            made = network.decode(posterior.mean + posterior.std * noise).sample
        return _loss(made.float(), crops) + KL_WEIGHT * posterior.kl().mean() / noise[0].numel()

    def report(network: torch.nn.Module, _: int) -> str:
        psnr, error = round_trip_error(held_out, decoded(network, encoded(network, held_out)))
        return f"held-out pieces: PSNR {psnr:.2f} dB, mel error {error:.2f} dB"

    return to_common_scale(training.run(loss_of, report), pictures)


def to_signal(levels: Pictures) -> torch.Tensor:
    """Return levels (n, 128, w), low frequencies in row 0, as the network sees pictures: (n, 3, 128, w) in -1..1."""
    flipped = torch.from_numpy(np.ascontiguousarray(levels[:, ::-1])).float() / 127.5 - 1.0
    return flipped[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def to_levels(signal: torch.Tensor) -> Pictures:
    """Return what `to_signal` made, or a network, as levels; the three channels are averaged."""
    values = signal.float().mean(1).flip(1).add(1).div(2)
    return quantise(values.contiguous().numpy())


def encoded(vae: torch.nn.Module, levels: Pictures, batch: int = 8) -> torch.Tensor:
    """Return the posterior means of pictures, unscaled, (n, 4, 16, w / 8) float32."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        parts = [vae.encode(to_signal(part)).latent_dist.mean.float() for part in _batches(levels, batch)]
    return torch.cat(parts).contiguous()


def decoded(vae: torch.nn.Module, latents: torch.Tensor, batch: int = 8) -> Pictures:
    """Return the pictures of latents as levels, (n, 128, w)."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return np.concatenate([to_levels(vae.decode(part).sample) for part in latents.split(batch)])


def round_trip_error(levels: Pictures, made: Pictures) -> tuple[float, float]:
    """Return (PSNR in dB, mean absolute mel error in dB with a floor 60 dB under each tile's maximum)."""
    values, others = dequantise(levels), dequantise(made)
    psnr = -10 * np.log10(max(np.mean(np.square(values - others)), 1e-12))
    first, second = _decibels(values), _decibels(others)
    floor = first.max(axis=(1, 2), keepdims=True) - FLOOR_DB
    return float(psnr), float(np.abs(np.maximum(first, floor) - np.maximum(second, floor)).mean())


def to_common_scale(vae: AutoencoderKL, pictures: Pictures, count: int = 128) -> AutoencoderKL:
    """Change the 1 x 1 convolutions beside the latents such that each channel has mean 0 and SDXL's scale.

    The round trip stays what it was.
    """
    latents = encoded(vae, pictures[:: max(1, len(pictures) // count), :, : SPEC.width])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    scale = 1 / (SCALING_FACTOR * std)
    with torch.no_grad():
        vae.quant_conv.weight[:4] *= scale[:, None, None, None]
        vae.quant_conv.bias[:4] = (vae.quant_conv.bias[:4] - mean) * scale
        vae.quant_conv.bias[4:] += 2 * scale.log()
        weight = vae.post_quant_conv.weight
        vae.post_quant_conv.bias += (weight[:, :, 0, 0] * mean).sum(1)
        weight /= scale[None, :, None, None]
    return vae


def _loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    error = made - wanted
    brightness = ((wanted + 1) / 2).mul(np.log1p(SPEC.law.mu))  # type: ignore[union-attr]
    weight = (1 + 1 / torch.expm1(brightness).clamp_min(1e-3)).clamp_max(DARK_WEIGHT)
    slopes = error.diff(dim=3).abs().mean() + error.diff(dim=2).abs().mean()
    return (weight * error.abs()).mean() + MSE_WEIGHT * error.square().mean() + SLOPE_WEIGHT * slopes


def _crops(pictures: Pictures, count: int, generator: np.random.Generator) -> torch.Tensor:
    chosen = generator.integers(len(pictures), size=count)
    starts = generator.integers(pictures.shape[2] - CROP + 1, size=count)
    return to_signal(np.stack([pictures[index, :, start : start + CROP] for index, start in zip(chosen, starts)]))


def _decibels(values: np.ndarray) -> np.ndarray:
    return 20 * np.log10(np.maximum(mel_of_values(values, SPEC), 1e-7))


def _batches(levels: Pictures, size: int) -> list[Pictures]:
    return [levels[start : start + size] for start in range(0, len(levels), size)]


RoundTrip = Callable[[Pictures], Pictures]
"""Pictures to pictures: what a judge sees of real music."""
