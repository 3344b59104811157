"""Training the UNet and both text encoders on latents of the VAE."""

import copy
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file

from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.files.atomic import atomic_path
from sdxl_mel.models.derived import config_of
from sdxl_mel.models.folder import json_bytes
from sdxl_mel.models.header import header_files
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.progress import track
from sdxl_mel.seeding import derive_seed, numpy_generator
from tools.mini_base.captions import drawn_caption
from tools.mini_base.data import SPEC, Pictures, Renders
from tools.mini_base.networks import LATENT_WIDTH, new_scheduler, new_text_encoders, new_tokenizer, new_unet
from tools.mini_base.training import Schedule, Training
from tools.mini_base.vae import SCALING_FACTOR, encoded

MIN_SNR = 5.0
TRAIN_STEPS = 1000
ENCODED_FRAMES = 320
"""Of each track this much: nine places for a tile, eight frames apart."""
TIME_IDS = (128, 256, 0, 0, 128, 256)
"""Original height and width, crop, target height and width."""


class Denoiser(torch.nn.Module):
    """The UNet with its text encoders: what is trained together.

    Attention is plain matrix products: at these lengths torch's fused backward takes a third of a step on a CPU.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.unet = new_unet()
        self.unet.set_attn_processor(AttnProcessor())
        self.text_encoder, self.text_encoder_2 = new_text_encoders(vocabulary)
        for encoder in (self.text_encoder, self.text_encoder_2):
            encoder.set_attn_implementation("eager")

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor, tokens_2: torch.Tensor):
        """Return the predicted noise, conditioned as SDXL is: the last hidden state but one of both encoders."""
        first = self.text_encoder(tokens, output_hidden_states=True).hidden_states[-2]
        second = self.text_encoder_2(tokens_2, output_hidden_states=True)
        hidden = torch.cat([first, second.hidden_states[-2]], -1)
        time_ids = torch.tensor([TIME_IDS], dtype=torch.float32).expand(len(noisy), -1)
        added = {"text_embeds": second.text_embeds, "time_ids": time_ids}
        return self.unet(noisy, timesteps, hidden, added_cond_kwargs=added).sample


@dataclass
class Diffusion:
    """What a step needs: latents (tracks, 4, 16, w) of unit scale, captions, the noise schedule, the tokenizers."""

    latents: torch.Tensor
    captions: list[list[str]]

    def __post_init__(self) -> None:
        self.alphas = new_scheduler().alphas_cumprod
        self.tokenizers = new_tokenizer("<|endoftext|>"), new_tokenizer("!")

    def loss(self, network: torch.nn.Module, generator: np.random.Generator, count: int) -> torch.Tensor:
        """Return the min-SNR weighted noise error of one drawn batch, in bfloat16."""
        chosen = generator.integers(len(self.latents), size=count)
        starts = generator.integers(self.latents.shape[-1] - LATENT_WIDTH + 1, size=count)
        clean = torch.stack([self.latents[i, :, :, s : s + LATENT_WIDTH] for i, s in zip(chosen, starts)])
        return self.error(
            network, clean, [drawn_caption(self.captions[index], generator) for index in chosen], generator
        )

    def error(
        self, network: torch.nn.Module, clean: torch.Tensor, captions: list[str], generator: np.random.Generator
    ) -> torch.Tensor:
        """Return the weighted error for latents and captions; timesteps are spread evenly from a random start."""
        count = len(clean)
        spread = (generator.random() + generator.permutation(count) / count) % 1.0
        timesteps = torch.from_numpy((spread * TRAIN_STEPS).astype(np.int64))
        noise = torch.from_numpy(generator.standard_normal(clean.shape, dtype=np.float32))
        alpha = self.alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        snr = alpha / (1 - alpha)
        weight = snr.clamp_max(MIN_SNR) / snr
        tokens = [
            torch.tensor(tokenizer(captions, padding="max_length", truncation=True).input_ids)
            for tokenizer in self.tokenizers
        ]
        with torch.autocast("cpu", torch.bfloat16):
            predicted = network(noisy.contiguous(memory_format=torch.channels_last), timesteps, *tokens)
        return (weight * (predicted.float() - noise).square()).mean()


def train_unet(
    vae: AutoencoderKL,
    tracks: Renders,
    held_out: Renders,
    *,
    schedule: Schedule,
    batch: int,
    checkpoint: Path,
    interim: Path | None = None,
) -> Denoiser:
    """Return the trained networks (moving average); `interim` gets a pipeline at every report."""
    torch.manual_seed(derive_seed(0, "unet weights"))
    diffusion, validation = (
        Diffusion(
            latents_of(vae, source.pictures, checkpoint.with_name(f"{name}-latents.safetensors"), schedule.threads),
            [list(row["captions"]) for row in source.about],
        )
        for name, source in (("train", tracks), ("held-out", held_out))
    )
    network = Denoiser(len(diffusion.tokenizers[0])).to(memory_format=torch.channels_last)
    training = Training(network, schedule, checkpoint)

    def loss_of(network: torch.nn.Module, step: int, part: int) -> torch.Tensor:
        generator = numpy_generator(0, "unet batch", step, part)
        return diffusion.loss(network, generator, batch // schedule.threads)

    def report(network: torch.nn.Module, _: int) -> str:
        if interim is not None:
            write_pipeline(interim, vae, network)
        return _validation_line(validation, network)

    return training.run(loss_of, report)


def pipeline_of(vae: AutoencoderKL, network: Denoiser) -> StableDiffusionXLPipeline:
    """Return the diffusers pipeline of the networks."""
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=network.text_encoder,
        text_encoder_2=network.text_encoder_2,
        tokenizer=new_tokenizer("<|endoftext|>"),
        tokenizer_2=new_tokenizer("!"),
        unet=network.unet,
        scheduler=new_scheduler(),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def write_pipeline(folder: Path, vae: AutoencoderKL, network: Denoiser, guidance: float | None = None) -> None:
    """Write the pipeline in float16, whole or not at all, with its spec and the guidance it was judged at.

    An older one at `folder` is replaced.
    """
    temporary, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for stale in (temporary, old):
        shutil.rmtree(stale, ignore_errors=True)
    pipeline_of(copy.deepcopy(vae), copy.deepcopy(network)).to(torch.float16).save_pretrained(temporary)
    # Once more, without the place that the VAE was read from.
    (temporary / "vae" / "config.json").write_bytes(json_bytes(config_of(vae)))
    layers = network.unet.config.layers_per_block
    header = LoraHeader(spec=SPEC, drawing=Drawing(guidance=guidance), architecture=Architecture(SDXL, layers))
    for name, content in header_files(header).items():
        (temporary / name).write_bytes(content)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def latents_of(vae: AutoencoderKL, pictures: Pictures, kept: Path, threads: int) -> torch.Tensor:
    """Return the latents of the first `ENCODED_FRAMES` frames at unit scale, from `kept` where it exists."""
    if not kept.exists():
        parts = np.array_split(np.arange(len(pictures)), max(1, len(pictures) // 16))
        work = [pictures[part, :, :ENCODED_FRAMES] for part in parts]
        with ThreadPoolExecutor(threads) as pool:
            made = list(track(pool.map(lambda part: encoded(vae, part, 4), work), len(work), "encoding", "parts"))
        with atomic_path(kept) as temporary:
            save_file({"latents": torch.cat(made) * SCALING_FACTOR}, temporary)
    return load_file(kept)["latents"]


def _validation_line(validation: Diffusion, network: torch.nn.Module, count: int = 64) -> str:
    """Return the error on held-out pieces with the true captions and with those of other tracks, same noise."""
    clean = validation.latents[:count, :, :, :LATENT_WIDTH]
    true = [captions[0] for captions in validation.captions[:count]]
    false = [*true[1:], true[0]]
    with torch.no_grad():
        errors = [
            float(validation.error(network, clean, captions, numpy_generator(0, "validation")))
            for captions in (true, false)
        ]
    return f"held-out pieces: error {errors[0]:.4f}, with wrong captions {errors[1]:.4f}"
