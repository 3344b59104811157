"""A tiny random CLAP as a transformers folder, and the same weights in the layout of LAION's checkpoints."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

BACK = (
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("attention.output.dense", "attn.proj"),
    ("attention.self.", "attn."),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("batch_norm", "bn0"),
)
"""From transformers' names to LAION's, written down from LAION's HTSAT and not from our map."""


def write_tiny_clap(folder: Path, truncation: str = "rand_trunc") -> Path:
    """Write a transformers folder."""
    model = tiny_model(truncation == "fusion")
    model.save_pretrained(folder, safe_serialization=True)
    ClapFeatureExtractor(truncation=truncation, frequency_min=50).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> Path:
    """Write a byte-level RoBERTa tokenizer."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=512).save_pretrained(folder)
    return folder


def tiny_model(fusion: bool = False) -> ClapModel:
    """Return a random ClapModel with HTSAT's full spec_size and mel bands."""
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    audio = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "num_hidden_layers": 2,
        "enable_fusion": fusion,
        "enable_patch_fusion": fusion,
    }
    text = {
        "vocab_size": 261,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "max_position_embeddings": 130,
        "layer_norm_eps": 1e-5,
    }
    model = ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=16)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.random.set_rng_state(state)
    return model


def laion_state(model: ClapModel) -> dict[str, torch.Tensor]:
    """Return the weights under LAION's names, with what LAION's checkpoints hold besides."""
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("position_ids")}
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if key.endswith(("attention.self.key.weight", "attention.self.key.bias")) and key.startswith("audio"):
            continue
        if key.endswith(("attention.self.value.weight", "attention.self.value.bias")) and key.startswith("audio"):
            continue
        found[f"module.{_laion_name(key)}"] = _joined(state, key, value)
    extras = {
        "audio_branch.spectrogram_extractor.stft.conv_real.weight": torch.zeros(3),
        "audio_branch.logmel_extractor.melW": torch.zeros(3),
        "audio_branch.tscam_conv.weight": torch.zeros(3),
        "audio_branch.head.weight": torch.zeros(3),
        "audio_transform.sequential.0.weight": torch.zeros(3),
        "text_transform.sequential.0.weight": torch.zeros(3),
        "text_branch.embeddings.position_ids": torch.zeros(3),
    }
    return found | {f"module.{key}": value for key, value in extras.items()}


def write_laion_checkpoint(path: Path, model: ClapModel) -> Path:
    """Write a checkpoint as LAION's training did: numpy numbers beside the weights."""
    content = {"epoch": np.int64(15), "best": np.float64(90.14), "name": "clap", "state_dict": laion_state(model)}
    torch.save(content, path)
    return path


def _joined(state: dict[str, torch.Tensor], key: str, value: torch.Tensor) -> torch.Tensor:
    if ".query." not in key or not key.startswith("audio"):
        return value
    return torch.cat([value, state[key.replace(".query.", ".key.")], state[key.replace(".query.", ".value.")]])


def _laion_name(key: str) -> str:
    for tower in ("audio", "text"):
        key = key.replace(f"{tower}_projection.linear1", f"{tower}_projection.0")
        key = key.replace(f"{tower}_projection.linear2", f"{tower}_projection.2")
    if key.startswith("text_model."):
        return key.replace("text_model.", "text_branch.", 1)
    if not key.startswith("audio_model."):
        return key
    for ours, laions in BACK:
        key = key.replace(ours, laions)
    return key.replace("audio_model.audio_encoder.", "audio_branch.", 1).replace("attn.query", "attn.qkv")
