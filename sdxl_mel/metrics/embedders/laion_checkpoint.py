"""LAION's CLAP checkpoints (.pt) rewritten once as a transformers folder with safetensors.

The map of names is that of LAION-CLAP 1.1.7 to transformers' ClapModel. The checkpoint is a pickle: it is read with
torch's restricted reader, which builds tensors and plain containers and runs nothing.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from sdxl_mel.errors import FormatError, InputError, first_line
from sdxl_mel.files.atomic import atomic_folder
from sdxl_mel.record import sha256_file

ORIGIN_FILE = "laion_checkpoint.json"
"""Beside the converted weights: which checkpoint they came from."""
AUDIO_NAMES = (
    ("attn", "attention.self"),
    ("self.proj", "output.dense"),
    ("attention.self_mask", "attn_mask"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
    ("norm1", "layernorm_before"),
    ("norm2", "layernorm_after"),
    ("bn0", "batch_norm"),
)
"""In this order: later rules see what earlier ones made."""
DROPPED = ("_transform.", "tscam_conv.", "logmel_extractor.", "spectrogram_extractor.", "attn_mask", "position_ids")
UNREADABLE = (UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError)
"""What torch's restricted reader raises for objects that it does not make, and for bytes that are no pickle."""
BUFFERS = ("relative_position_index", "position_ids", "token_type_ids")
"""Made by the model itself."""
TEXT_HEAD_WIDTH = 64
ROBERTA_EPS = 1e-5
"""Of roberta-base, which LAION's text tower is; ClapTextConfig's default is 1e-12."""


def convert(checkpoint: Path, folder: Path, tokenizer: str) -> int:
    """Write a transformers folder from LAION's checkpoint; returns the number of tensors.

    `tokenizer` is a folder or hub id with RoBERTa's tokenizer. Raises FormatError for a tensor missing or left over.
    """
    words = _tokenizer(tokenizer)
    tensors = renamed(read_checkpoint(checkpoint))
    config = transformers.ClapConfig(**infer_config(tensors, checkpoint))
    model = transformers.ClapModel(config)
    result = model.load_state_dict(tensors, strict=False)
    missing = [key for key in result.missing_keys if not key.endswith(BUFFERS)]
    if missing or result.unexpected_keys:
        wrong = (missing + result.unexpected_keys)[0]
        raise FormatError(f"{checkpoint}: not one of LAION's CLAP checkpoints: {wrong} is missing or left over")
    fusion = bool(config.audio_config.enable_fusion)
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary, safe_serialization=True)
        truncation = "fusion" if fusion else "rand_trunc"
        transformers.ClapFeatureExtractor(truncation=truncation, frequency_min=50).save_pretrained(temporary)
        words.save_pretrained(temporary)
        origin = {"checkpoint": checkpoint.stem, "sha256": sha256_file(checkpoint)}
        (temporary / ORIGIN_FILE).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    return len(tensors)


def read_checkpoint(checkpoint: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint with `module.` taken off. Raises InputError or FormatError."""
    scalar: Any = np.float64(0).__reduce__()[0]  # numpy's constructor of scalars, which LAION's checkpoints hold
    numbers = [type(np.dtype(kind)) for kind in (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)]
    harmless: list[Any] = [np.dtype, *numbers, scalar, (scalar, "numpy.core.multiarray.scalar")]
    try:
        with torch.serialization.safe_globals(harmless):
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{checkpoint}: cannot read this checkpoint ({error.strerror or error})") from error
    except UNREADABLE as error:
        raise FormatError(f"{checkpoint}: not a checkpoint of plain tensors and numbers ({_reason(error)})") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    tensors = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    if not any(key.startswith("audio_branch.") for key in tensors):
        raise FormatError(f"{checkpoint}: no audio_branch in it; expected one of LAION's CLAP checkpoints")
    return tensors


def _reason(error: Exception) -> str:
    """Return what in torch's long message names the thing that was found."""
    found = re.search(r"Unsupported [\w ]+: [\w. ]+|got <[^>]+>", str(error))
    return found[0] if found else (first_line(error) or type(error).__name__)[:120]


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return LAION's tensors under transformers' names, queries, keys and values apart."""
    result: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = _renamed(key)
        if name is None:
            continue
        if "qkv" in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                result[name.replace("qkv", part)] = third.contiguous()
        else:
            result[name] = value
    return result


def _renamed(key: str) -> str | None:
    if any(part in key for part in DROPPED) or key.startswith("audio_branch.head.") or key.endswith("token_type_ids"):
        return None
    for tower in ("audio", "text"):
        for number, layer in (("0", "linear1"), ("2", "linear2")):
            key = key.replace(f"{tower}_projection.{number}.", f"{tower}_projection.{layer}.")
    if not key.startswith("audio_branch."):
        return key.replace("text_branch.", "text_model.", 1)
    for old, new in AUDIO_NAMES:
        key = key.replace(old, new)
    return key.replace("audio_branch.", "audio_model.audio_encoder.", 1)


def infer_config(tensors: Mapping[str, Tensor], where: Path) -> dict[str, object]:
    """Return ClapConfig's arguments from the shapes of renamed tensors."""
    try:
        return {
            "audio_config": _audio_config(tensors),
            "text_config": _text_config(tensors),
            "projection_dim": len(tensors["audio_projection.linear2.weight"]),
        }
    except KeyError as error:
        raise FormatError(f"{where}: not one of LAION's CLAP checkpoints: no tensor {error}") from error


def _audio_config(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    tower = "audio_model.audio_encoder."
    width = len(tensors[f"{tower}patch_embed.proj.weight"])
    table = "attention.self.relative_position_bias_table"
    stages = _count(tensors, f"{tower}layers.")
    depths = [_count(tensors, f"{tower}layers.{stage}.blocks.") for stage in range(stages)]
    tables = [tensors[f"{tower}layers.{stage}.blocks.0.{table}"] for stage in range(stages)]
    fusion = f"{tower}patch_embed.mel_conv2d.weight" in tensors
    return {
        "patch_embeds_hidden_size": width,
        "hidden_size": width * 2 ** (stages - 1),
        "depths": depths,
        "num_hidden_layers": stages,
        "num_attention_heads": [heads.shape[1] for heads in tables],
        "window_size": (round(len(tables[0]) ** 0.5) + 1) // 2,
        "num_mel_bins": len(tensors[f"{tower}batch_norm.weight"]),
        "enable_fusion": fusion,
        "enable_patch_fusion": fusion,
        "enable_patch_layer_norm": f"{tower}patch_embed.norm.weight" in tensors,
    }


def _text_config(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    words = tensors["text_model.embeddings.word_embeddings.weight"]
    return {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "intermediate_size": len(tensors["text_model.encoder.layer.0.intermediate.dense.weight"]),
        "num_hidden_layers": _count(tensors, "text_model.encoder.layer."),
        "num_attention_heads": max(1, words.shape[1] // TEXT_HEAD_WIDTH),
        "max_position_embeddings": len(tensors["text_model.embeddings.position_embeddings.weight"]),
        "type_vocab_size": len(tensors["text_model.embeddings.token_type_embeddings.weight"]),
        "layer_norm_eps": ROBERTA_EPS,
    }


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].partition(".")[0] for key in tensors if key.startswith(prefix)})


def _tokenizer(source: str) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{source}: no RoBERTa tokenizer here ({first_line(error)}); "
            "give --tokenizer FOLDER with the tokenizer of roberta-base"
        ) from error
