"""A training run's folder: what lies in it, by name.

RUN/run.json  config.toml  metrics.jsonl  README.md  curves.png
RUN/lora.safetensors                         kohya's names (ComfyUI, A1111, Civitai)
RUN/diffusers/pytorch_lora_weights.safetensors
RUN/base/*                                   a base with smaller parts, of the tasks student and text-encoder
RUN/small_decoder/*  RUN/refiner/*            beside the VAE of a base
RUN/vae/*  RUN/vae.safetensors               a VAE whose decoder was trained, as diffusers and as ComfyUI load it
RUN/checkpoints/step-000250.safetensors  RUN/averages/0.1.safetensors
RUN/samples/step-000250/*  RUN/state/step-000250/*
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from sdxl_mel.errors import InputError, printable
from sdxl_mel.files.header import parse_json

HEADER_NAME = "run.json"
CONFIG_NAME = "config.toml"
LORA_NAME = "lora.safetensors"
DIFFUSERS_NAME = "diffusers/pytorch_lora_weights.safetensors"
BASE_NAME = "base"
SMALL_DECODER_NAME = "small_decoder"
REFINER_NAME = "refiner"
VAE_NAME = "vae"
VAE_FILE_NAME = "vae.safetensors"
METRICS_NAME = "metrics.jsonl"
CURVES_NAME = "curves.png"
PAIRS_NAME = "pairs"
REDRAWN_NAME = "redrawn_latents"
MATERIAL = (PAIRS_NAME, REDRAWN_NAME)
"""What tasks make before there is a run: files that are named by what decides them, so that any run may take them."""


def is_run(folder: Path) -> bool:
    """Say whether a folder holds a run."""
    return (folder / HEADER_NAME).is_file()


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the weights of a step lie."""
    return folder / "checkpoints" / f"step-{step:06d}.safetensors"


def average_path(folder: Path, length: float) -> Path:
    """Return where a moving average of the weights lies."""
    return folder / "averages" / f"{length:g}.safetensors"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`; a last line that was cut off by a kill is left out."""
    path = folder / METRICS_NAME
    rows = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            rows.append(dict(parse_json(line)))
        except (ValueError, TypeError):
            break
    return rows


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the LoRA of every saved step of a run."""
    return {
        int(path.stem.removeprefix("step-")): path
        for path in sorted((folder / "checkpoints").glob("step-*.safetensors"))
    }


def to_toml(settings: Mapping[str, JsonValue], prefix: str = "") -> str:
    """Return nested settings as TOML; settings without a value are left out. Raises InputError for no UTF-8."""
    for name, value in settings.items():
        if isinstance(value, str) and printable(value) != value:
            raise InputError(f"{name}: {value!r} is not UTF-8 and cannot stand in {CONFIG_NAME}; give it another name")
    plain = {name: value for name, value in settings.items() if value is not None and not isinstance(value, Mapping)}
    lines = [f"{_key(name)} = {json.dumps(value, ensure_ascii=False)}" for name, value in plain.items()]
    text = "\n".join([f"[{prefix}]", *lines] if prefix and lines else lines) + "\n" * bool(lines)
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            below = to_toml(value, f"{prefix}.{_key(name)}" if prefix else _key(name))
            text += f"\n{below.lstrip()}" if below else ""
    return text


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)
