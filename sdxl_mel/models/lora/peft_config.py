"""peft's adapter settings: where diffusers' dialect keeps the alphas, in a file's header or in adapter_config.json."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.header import parse_json
from sdxl_mel.models.families import FAMILIES
from sdxl_mel.models.family import ADAPTABLE, Part
from sdxl_mel.models.layouts import without_text_model
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.models.lora.names import Module

METADATA_KEY = "lora_adapter_metadata"
CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "orthogonal")
"""Initialisations of peft that train against changed base weights, so that the adapter alone means nothing."""

Config = Mapping[str, Any]


def metadata_of(modules: Mapping[Module, LoraModule]) -> str:
    """Return the header value from which diffusers rebuilds peft's LoraConfig of every part, alphas included."""
    settings: dict[str, object] = {}
    for part in ADAPTABLE:
        own = {path: module for (owner, path), module in modules.items() if owner == part}
        if own:
            settings |= {f"{part}.{name}": value for name, value in _config_of(part, own).items()}
    return json.dumps(settings, indent=2, sort_keys=True)


def _config_of(part: Part, modules: Mapping[str, LoraModule]) -> dict[str, object]:
    """Return LoraConfig's arguments; patterns name only what differs from the commonest rank and alpha.

    peft matches targets and patterns at the end of a path, so that the text encoders' paths without `text_model.` are
    right for every version of transformers.
    """
    paths = {path: without_text_model(path) for path in modules}
    rank = Counter(module.rank for module in modules.values()).most_common(1)[0][0]
    alpha = Counter(module.alpha for module in modules.values()).most_common(1)[0][0]
    dora = {module.magnitude is not None for module in modules.values()}
    if len(dora) > 1:
        raise InputError(f"{part}: DoRA on some modules and not on others has no form in diffusers; write --to kohya")
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {paths[path]: module.rank for path, module in modules.items() if module.rank != rank},
        "alpha_pattern": {paths[path]: module.alpha for path, module in modules.items() if module.alpha != alpha},
        "target_modules": sorted(paths.values()),
        "use_dora": dora.pop(),
        "use_rslora": False,
        "lora_bias": False,
        "bias": "none",
    }


def configs_of(metadata: Mapping[str, str], where: str) -> dict[Part, Config]:
    """Return the settings of each part in a file's header. Raises FormatError when they are not JSON."""
    if METADATA_KEY not in metadata:
        return {}
    try:
        settings = dict(parse_json(metadata[METADATA_KEY]))
    except (ValueError, TypeError) as error:
        raise FormatError(f"{where}: its {METADATA_KEY} is damaged ({error})") from error
    found: dict[Part, Config] = {}
    for part in ADAPTABLE:
        config = {
            name.removeprefix(f"{part}."): value for name, value in settings.items() if name.startswith(f"{part}.")
        }
        if config:
            found[part] = _usable(config, where)
    return found


def parse_config(folder: Path) -> tuple[Part, Config]:
    """Return which part a peft folder belongs to and its settings.

    Raises InputError for settings that a LoRA alone cannot express, and for a text encoder that could be either.
    """
    path = folder / "adapter_config.json"
    try:
        config = dict(parse_json(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise FormatError(f"{path}: not peft's settings ({error})") from error
    if config.get("peft_type") != "LORA":
        raise InputError(f"{path}: an adapter of kind {config.get('peft_type')}; only LORA is read")
    return _part_of(folder, config), _usable(config, str(path))


def _part_of(folder: Path, config: Config) -> Part:
    mapping = config.get("auto_mapping")
    owner = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    classes = {
        component.class_name: component.part
        for family in FAMILIES
        for component in family.components
        if component.kohya
    }
    named: dict[str, Part] = {part: part for part in ADAPTABLE}
    part = classes.get(str(owner)) or named.get(folder.name)
    if part is None:
        raise InputError(
            f"{folder}: does not say which model it adapts; name the folder after its part, one of "
            f"{', '.join(ADAPTABLE)}"
        )
    return part


def _usable(config: Config, where: str) -> Config:
    """Refuse settings whose effect is outside the tensors."""
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(CHANGES_BASE):
        raise InputError(
            f"{where}: init_lora_weights={start} trained against changed base weights; convert it in peft to a plain "
            "LoRA first (save_pretrained with path_initial_model_for_weight_conversion)"
        )
    for name in ("modules_to_save", "layer_replication"):
        if config.get(name):
            raise InputError(f"{where}: {name} is set, which a LoRA file cannot express")
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        raise InputError(f"{where}: it trains biases, which a LoRA file cannot express")
    return config


def alphas_of(configs: Mapping[Part, Config], ranks: Mapping[Module, int], where: str) -> dict[Module, float]:
    """Return each module's alpha as kohya means it (scale = alpha / rank); rsLoRA's alpha / sqrt(rank) is converted.

    Raises FormatError for settings that are no numbers or no patterns.
    """
    try:
        return {
            (part, path): _alpha(configs[part], path, rank)
            for (part, path), rank in ranks.items()
            if part in configs and "lora_alpha" in configs[part]
        }
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise FormatError(f"{where}: the alphas in its settings of peft are damaged ({error})") from error


def _alpha(config: Config, path: str, rank: int) -> float:
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    matched = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", path))
    alpha = float(next(matched, config["lora_alpha"]))
    return alpha * sqrt(rank) if config.get("use_rslora") else alpha
