"""How LoRA files spell the name of a tensor: the two dialects that are written, and every spelling that is read."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sdxl_mel.errors import InputError
from sdxl_mel.models.family import Component, Part
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.renaming import Separator
from sdxl_mel.options import Dialect

Role = str
"""What a tensor is to its module: down, up, alpha, magnitude, mid, or what LyCORIS calls it."""
Module = tuple[Part, str]

KOHYA_ROLES: Mapping[Role, str] = {
    "down": "lora_down.weight",
    "up": "lora_up.weight",
    "alpha": "alpha",
    "magnitude": "dora_scale",
}
DIFFUSERS_ROLES: Mapping[Role, str] = {
    "down": "lora_A.weight",
    "up": "lora_B.weight",
    "magnitude": "lora_magnitude_vector",
}
TEXT_MAGNITUDE = "lora_magnitude_vector.weight"
"""A text encoder's magnitude in diffusers' dialect, which diffusers 0.42 finds under no other name."""
FACTORS = (
    *("hada_w1_a", "hada_w1_b", "hada_t1", "hada_w2_a", "hada_w2_b", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
)
DIFFERENCES = {"diff": "weight", "diff_b": "bias", "w_norm": "weight", "b_norm": "bias"}
"""Whole differences, and the parameter of the module to which each is added."""
SUFFIXES: Mapping[str, Role] = {
    **{suffix: role for roles in (KOHYA_ROLES, DIFFUSERS_ROLES) for role, suffix in roles.items()},
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_mid.weight": "mid",
    TEXT_MAGNITUDE: "magnitude",
    "dora_scale": "dora_scale",
    "magnitude": "dora_scale",
    **{role: role for role in (*FACTORS, *DIFFERENCES)},
}
# The last dots of a key separate the module from what the tensor is to it; the longest suffix wins.
_SUFFIX = re.compile(rf"(.+?)\.({'|'.join(re.escape(suffix) for suffix in sorted(SUFFIXES, key=len, reverse=True))})")

STARTS: Mapping[Part, Mapping[str, Separator]] = {
    "unet": {"diffusion_model.": ".", "lycoris_": "_", "": "."},
    "text_encoder": {"text_encoders.clip_l.transformer.": ".", "clip_l.": "."},
    "text_encoder_2": {"text_encoders.clip_g.transformer.": ".", "clip_g.": "."},
}
"""How names start for a part, and what separates the rest, beside what the family says (`_starts`): ComfyUI's names,
OneTrainer's, and those of LyCORIS and peft for a UNet alone."""
REWRITTEN = (
    # peft's wrapper, and the name of an adapter
    (re.compile(r"(?<![^.])base_model\.model\."), ""),
    (re.compile(r"(\.lora_(?:A|B|magnitude_vector))\.[^.]+(?=\.weight$)"), r"\1"),
    # diffusers before 0.17: attention processors
    (re.compile(r"(\.self_attn)\.to_(q|k|v|out)_lora\."), r"\1.\2_proj.lora."),
    (re.compile(r"\.(?:processor\.)?to_out_lora\."), ".to_out.0.lora."),
    (re.compile(r"\.(?:processor\.)?(to_[qkv])_lora\."), r".\1.lora."),
)
"""Older and other spellings within a name, and what they stand for."""


class Key(NamedTuple):
    """Which module a tensor belongs to, and what it is to it."""

    part: Part
    path: str
    role: Role

    @property
    def module(self) -> Module:
        """Return the module, as `Lora.modules` is keyed."""
        return self.part, self.path


def write_key(dialect: Dialect, key: Key, architecture: Architecture) -> str:
    """Return the name of a tensor in a dialect; `parse_key` is the inverse. Raises InputError for a foreign module."""
    family = architecture.family
    if dialect == "diffusers":
        text = key.role == "magnitude" and key.part != "unet"
        return f"{key.part}.{key.path}.{TEXT_MAGNITUDE if text else DIFFUSERS_ROLES[key.role]}"
    name = architecture.to_original(key.part, key.path) if key.part in family.parts else None
    if name is None:
        raise InputError(
            f"{family.title} has no module {key.part}.{key.path}, so kohya's format has no name for it; give a LoRA of "
            f"{family.title}"
        )
    if key.part == "unet" and family.kohya_layout == "diffusers":
        name = key.path
    return f"{family.component(key.part).kohya}{name.replace('.', '_')}.{KOHYA_ROLES[key.role]}"


def parse_key(name: str, architecture: Architecture) -> Key | None:
    """Return what a tensor's name means in whichever spelling, or None if it is none of the family's LoRA names."""
    match = _SUFFIX.fullmatch(rewritten(name))
    path = match and parse_module(match[1], architecture)
    return Key(*path, SUFFIXES[match[2]]) if match and path else None


def rewritten(name: str) -> str:
    """Return a tensor's name with the present spelling of whatever in it has another."""
    for pattern, replacement in REWRITTEN:
        name = pattern.sub(replacement, name)
    return name


def parse_module(name: str, architecture: Architecture) -> Module | None:
    """Return the module that a name means in whichever spelling, or None if the family has no such module."""
    for component in architecture.family.components:
        for start, separator in _starts(component):
            if name.startswith(start):
                for layout in ("original", "diffusers"):
                    path = architecture.to_diffusers(component.part, name.removeprefix(start), layout, separator)
                    if path:
                        return component.part, path
    return None


def _starts(component: Component) -> Iterator[tuple[str, Separator]]:
    """Yield how the names of a part can start, and what separates the rest."""
    if component.kohya:
        yield component.kohya, "_"
        yield component.kohya.replace("lora_", "lycoris_"), "_"
        yield f"{component.kohya[:-1]}.", "."
        yield f"{component.part}.", "."
        yield component.original, "."
        yield from STARTS[component.part].items()
