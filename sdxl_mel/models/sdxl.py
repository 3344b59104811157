"""Is it SDXL? Decided from the configs alone, before any weight is read."""

from collections.abc import Mapping
from typing import Any

from sdxl_mel.errors import InputError

NEEDED = (
    "needed is SDXL 1.0 base or a fine-tune of it: two text encoders, a UNet with text_time conditioning and 4 input "
    "channels, a VAE with 4 latent channels"
)
TIME_IDS = 6
Config = Mapping[str, Any]


def require_sdxl(configs: Mapping[str, Config], pipeline_class: str, name: str) -> None:
    """Raise InputError that says what `name` is instead, unless its configs fit together as SDXL 1.0's do."""
    unet = configs.get("unet", {})
    found = _other_model(unet, configs, pipeline_class)
    if found:
        raise InputError(f"{name}: this is {found}; {NEEDED}")
    problems = [*_unet_problems(unet, configs)] if unet else []
    if problems:
        raise InputError(f"{name}: not SDXL-shaped: {'; '.join(problems)}; {NEEDED}")
    if "vae" in configs:
        require_vae(configs["vae"], name)


def require_vae(config: Config, name: str) -> None:
    """Raise InputError unless a VAE makes one latent of 4 channels from 8 x 8 pixels of RGB."""
    levels = len(config.get("block_out_channels", ()))
    channels = config.get("latent_channels")
    if config.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
        raise InputError(f"{name}: its VAE is a {config['_class_name']}; needed is an AutoencoderKL of SDXL")
    if channels != 4 or levels != 4 or config.get("in_channels", 3) != 3:
        raise InputError(
            f"{name}: its VAE has {channels} latent channels at 1/{2 ** max(levels - 1, 0)} of the size; needed are 4 "
            "channels at 1/8, as SDXL's has"
        )
    if config.get("latents_mean") is not None or config.get("shift_factor"):
        raise InputError(f"{name}: its VAE shifts its latents; needed is one that only scales them, as SDXL's does")


def _other_model(unet: Config, configs: Mapping[str, Config], pipeline_class: str) -> str:
    channels, addition = unet.get("in_channels", 4), unet.get("addition_embed_type")
    family = "SDXL" if addition == "text_time" or "XL" in pipeline_class else "SD 1.5 or 2"
    aesthetic = configs.get("text_encoder") is None and configs.get("text_encoder_2") is not None
    if channels == 9 or "Inpaint" in pipeline_class:
        return f"an inpainting model of {family}"
    if family == "SDXL":
        refiner = aesthetic or unet.get("cross_attention_dim") == 1280
        return "the SDXL refiner" if refiner else ""
    if pipeline_class.startswith("StableDiffusionPipeline") or (unet and "cross_attention_dim" in unet):
        width = unet.get("cross_attention_dim")
        return {768: "SD 1.x", 1024: "SD 2.x"}.get(width, "SD 1.x or 2.x") if isinstance(width, int) else family
    return f"a {pipeline_class}" if pipeline_class else "no diffusers pipeline (no model_index.json, no unet/)"


def _unet_problems(unet: Config, configs: Mapping[str, Config]) -> list[str]:
    problems = []
    if unet.get("in_channels") != 4 or unet.get("out_channels") != 4:
        problems.append(f"its UNet has {unet.get('in_channels')} channels in and {unet.get('out_channels')} out")
    one, two = configs.get("text_encoder"), configs.get("text_encoder_2")
    if one is None or two is None:
        return problems
    width = one["hidden_size"] + two["hidden_size"]
    if unet.get("cross_attention_dim") != width:
        problems.append(
            f"its UNet attends to {unet.get('cross_attention_dim')} channels, its text encoders give {width}"
        )
    pooled = two["projection_dim"] + TIME_IDS * unet.get("addition_time_embed_dim", 256)
    if unet.get("projection_class_embeddings_input_dim") != pooled:
        problems.append(
            f"its UNet takes {unet.get('projection_class_embeddings_input_dim')} conditioning numbers, its text "
            f"encoder and {TIME_IDS} sizes give {pooled}"
        )
    return problems
