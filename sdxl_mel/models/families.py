"""The families that are known, and which of them a folder or a file is of: decided before any weight is read."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sdxl_mel.errors import InputError
from sdxl_mel.models.family import UNET, Config, Configs, Family
from sdxl_mel.models.sd15 import SD15
from sdxl_mel.models.sdxl import SDXL

FAMILIES = (SDXL, SD15)
TITLES = " or ".join(family.title for family in FAMILIES)
NEEDED = (
    f"needed is {', or '.join(family.needed for family in FAMILIES)}, with 4 input channels and a VAE of 4 latent "
    "channels"
)
EDM = "is drawn by EDM's noise levels, which are not trained or drawn here"
REFUSED = (
    (r"(.*\.)?(weight_scale|comfy_quant)", "quantised with scales of its own (ComfyUI's comfy_quant)"),
    (r".*\.weight\.(absmax|quant_map|quant_state\..*)", "quantised by bitsandbytes"),
    (r"edm_mean|edm_std", f"Playground v2.5, which {EDM}"),
    (r"edm_vpred\..*", f"of the kind of CosXL, which {EDM}"),
)
"""What a checkpoint of a known family is that has a tensor of such a name, and is not read."""
OTHER_FILES = (
    (r"conditioner\.embedders\.0\.model\.", "the SDXL refiner"),
    (r"cond_stage_model\.model\.", "SD 2.x"),
    (r"lora_|.*[._](lora_|lora\.|hada_|lokr_|oft_)", "a LoRA, not a base model"),
    (r"(model\.)?(diffusion_model\.)?(double_blocks|single_transformer_blocks)\.", "Flux"),
    (r"(model\.)?(diffusion_model\.)?joint_blocks\.", "SD 3"),
    (r"conditioner\.", "SDXL without one of its text encoders"),
    (r"(model\.)?diffusion_model\.|input_blocks\.", "a UNet alone, without text encoders and VAE"),
    (r"(unet\.)?(down_blocks|conv_in|time_embedding)\.", "a UNet alone in diffusers' layout"),
    (r"(first_stage_model\.|vae\.)?(encoder|decoder)\.(conv_in|mid|down|up)", "a VAE alone, which --vae takes"),
    (r"(text_model|transformer|text_projection)\.", "a text encoder alone"),
)
"""What a file is that has tensors with such names and not every text encoder of a family; the first that fits."""


def family_named(name: str) -> Family:
    """Return the family of this name. Raises ValueError for an unknown one."""
    for family in FAMILIES:
        if family.name == name:
            return family
    raise ValueError(f"a model of the family {name!r}, this toolkit knows {', '.join(f.name for f in FAMILIES)}")


def family_of_configs(configs: Configs, pipeline_class: str, name: str) -> Family:
    """Return the family whose configs these are. Raises InputError that says what `name` is instead."""
    family = next((each for each in FAMILIES if each.recognises(configs, pipeline_class)), None)
    if family is None:
        what = f"a {pipeline_class}" if pipeline_class else "no diffusers pipeline (no model_index.json, no unet/)"
        raise InputError(f"{name}: this is {what}; {NEEDED}")
    unet, instead = configs.get("unet", {}), family.instead(configs)
    if unet.get("in_channels") == 9 or "Inpaint" in pipeline_class:
        raise InputError(f"{name}: this is an inpainting model of {instead or family.title}; {NEEDED}")
    if instead:
        raise InputError(f"{name}: this is {instead}; {NEEDED}")
    problems = [*family.problems(configs)] if unet else []
    if problems:
        raise InputError(f"{name}: not {family.title}-shaped: {'; '.join(problems)}; {NEEDED}")
    if "vae" in configs:
        require_vae(configs["vae"], name)
    return family


def family_of_file(shapes: Mapping[str, tuple[int, ...]], path: Path) -> Family:
    """Return the family of a single file in the original layout: the one whose text encoders it has.

    Where it has those of several, its UNet decides. Raises InputError that says what the file is instead, or what of it
    does not belong together.
    """
    families = [each for each in FAMILIES if _has_text_encoders(shapes, each)]
    has_unet = any(name.startswith(UNET.original) for name in shapes)
    told = any(name.startswith(f"{UNET.original}label_emb.") for name in shapes)
    fitting = [each for each in families if not has_unet or told == (each.time_ids(8, 8) is not None)]
    family = next(iter(fitting or families), None)
    entry = shapes.get(f"{UNET.original}input_blocks.0.0.weight", ())
    if len(entry) == 4 and entry[1] != 4:
        of = family.title if family else "SD 1.5 or 2"
        kind = f"an inpainting model of {of}" if entry[1] == 9 else f"a model of {of} with {entry[1]} channels in"
        raise InputError(f"{path}: this is {kind}; {NEEDED}")
    if family is None:
        first = next(iter(sorted(shapes)), "none")
        found = _first_fit(OTHER_FILES, shapes) or f"no checkpoint in the original layout (its first tensor: {first})"
        raise InputError(f"{path}: this is {found}; {NEEDED}")
    if not fitting:
        other = "is told no sizes" if family.time_ids(8, 8) is not None else "is told sizes, as SDXL's is"
        raise InputError(f"{path}: has the text encoders of {family.title}, and a UNet that {other}; {NEEDED}")
    refused = _first_fit(REFUSED, shapes)
    if refused:
        raise InputError(
            f"{path}: this is {family.title} {refused}; give its fp16, bf16 or fp32 checkpoint or another base"
        )
    return family


def _first_fit(kinds: Sequence[tuple[str, str]], names: Iterable[str]) -> str | None:
    """Return what the first pattern says that the beginning of a name fits."""
    known = list(names)
    return next((what for pattern, what in kinds if any(re.match(pattern, name) for name in known)), None)


def require_vae(config: Config, name: str) -> None:
    """Raise InputError unless a VAE makes one latent of 4 channels from 8 x 8 pixels of RGB, scaled by one factor."""
    levels = len(config.get("block_out_channels", ()))
    channels = config.get("latent_channels")
    if config.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
        raise InputError(f"{name}: its VAE is a {config['_class_name']}; needed is an AutoencoderKL of {TITLES}")
    if channels != 4 or levels != 4 or config.get("in_channels", 3) != 3:
        raise InputError(
            f"{name}: its VAE has {channels} latent channels at 1/{2 ** max(levels - 1, 0)} of the size; needed are 4 "
            f"channels at 1/8, as a VAE of {TITLES} has"
        )
    own = [key for key in ("latents_mean", "latents_std") if config.get(key) is not None]
    own += ["shift_factor"] if config.get("shift_factor") else []
    if own:
        raise InputError(
            f"{name}: its VAE has {' and '.join(own)}; needed is one that scales its latents by one factor only, as a "
            f"VAE of {TITLES} does"
        )


def _has_text_encoders(shapes: Mapping[str, tuple[int, ...]], family: Family) -> bool:
    return all(any(name.startswith(encoder.original) for name in shapes) for encoder in family.text_encoders)
