"""How the dialects of LoRA files spell a tensor's name, derived from the module names' rule table."""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from sdxl_mel.errors import InputError
from sdxl_mel.models.family import ADAPTABLE, Part
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.options import Dialect

Role = Literal["down", "up", "alpha", "magnitude"]
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
SUFFIXES: Mapping[str, Role] = {
    **{suffix: role for roles in (KOHYA_ROLES, DIFFUSERS_ROLES) for role, suffix in roles.items()},
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_magnitude_vector.weight": "magnitude",
}
# The last dots of a key separate the module from what the tensor is to it; the longest suffix wins.
_SUFFIX = re.compile(rf"(.+?)\.({'|'.join(re.escape(suffix) for suffix in sorted(SUFFIXES, key=len, reverse=True))})")


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
        return f"{key.part}.{key.path}.{DIFFUSERS_ROLES[key.role]}"
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
    """Return what a tensor's name means in whichever dialect, or None if it is none of the family's LoRA names."""
    match = _SUFFIX.fullmatch(name)
    if match is None:
        return None
    module, role = match[1], SUFFIXES[match[2]]
    for component in architecture.family.components:
        part, rest = component.part, module.removeprefix(component.kohya)
        if component.kohya and rest != module:
            path = architecture.to_diffusers(part, rest, "original", "_")
            path = path or architecture.to_diffusers(part, rest, "diffusers", "_")
            return Key(part, path, role) if path else None
        if part in ADAPTABLE and module.startswith(f"{part}."):
            path = architecture.to_diffusers(part, module.removeprefix(f"{part}."), "diffusers")
            return Key(part, path, role) if path else None
    return None
