"""The families that are known, and which of them a folder or a file is of: decided before any weight is read."""

from collections.abc import Mapping
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
OTHER_FILES = {
    "conditioner.embedders.0.model.": "the SDXL refiner",
    "cond_stage_model.model.": "SD 2.x",
    "lora_": "a LoRA, not a base model",
    "unet.": "a LoRA, not a base model",
    "down_blocks.": "one part alone in diffusers' layout; give the folder it came from",
    "encoder.": "a VAE alone, which --vae takes",
    "text_model.": "a text encoder alone",
}
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

    Raises InputError that says what the file is instead.
    """
    family = next((each for each in FAMILIES if _has_text_encoders(shapes, each)), None)
    entry = shapes.get(f"{UNET.original}input_blocks.0.0.weight", ())
    if len(entry) == 4 and entry[1] == 9:
        of = family.title if family else "SD 1.5 or 2"
        raise InputError(f"{path}: this is an inpainting model of {of}; {NEEDED}")
    if family is None:
        kinds = (what for mark, what in OTHER_FILES.items() if any(name.startswith(mark) for name in shapes))
        first = next(iter(sorted(shapes)), "none")
        found = next(kinds, f"no checkpoint in the original layout (its first tensor: {first})")
        raise InputError(f"{path}: this is {found}; {NEEDED}")
    return family


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
