"""A diffusers folder rewritten as one file in the original layout, by rules of its own: what the loader must undo."""

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.sd15 import SD15
from sdxl_mel.models.sdxl import SDXL

VAE_RULES = (
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_q", "mid.attn_1.q"),
    (r"mid_block\.attentions\.0\.to_k", "mid.attn_1.k"),
    (r"mid_block\.attentions\.0\.to_v", "mid.attn_1.v"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets", lambda found: f"up.{3 - int(found[1])}.block"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{3 - int(found[1])}.upsample"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)
OPEN_CLIP_RULES = (
    (r"^text_model\.", ""),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"^embeddings\.token_embedding\.weight", "token_embedding.weight"),
    (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^final_layer_norm", "ln_final"),
    (r"layer_norm([12])", r"ln_\1"),
    (r"self_attn\.out_proj", "attn.out_proj"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
)


def write_single_file(folder: Path, path: Path, layers_per_block: int = 2) -> Path:
    """Write the weights of a diffusers folder to `path` in the original layout, and its configs beside it."""
    if (folder / "text_encoder_2").is_dir():
        unet = _unet(folder, Architecture(SDXL, layers_per_block))
        texts = {
            "conditioner.embedders.0.transformer": _clip(folder),
            "conditioner.embedders.1.model": _open_clip(folder),
        }
    else:
        unet = _unet(folder, Architecture(SD15, layers_per_block))
        texts = {"cond_stage_model.transformer": _clip(folder)}
    parts = {"model.diffusion_model": unet, "first_stage_model": vae_tensors(folder), **texts}
    tensors = {f"{prefix}.{key}": value for prefix, part in parts.items() for key, value in part.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    shutil.copytree(folder, path.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))
    return path


def weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    """Return the stored tensors of a part."""
    return load_file(next((folder / part).glob("*.safetensors")))


def vae_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a VAE under their original names; the attention's matrices are 1 x 1 convolutions there."""
    stored = weights(folder, "vae").items()
    named = {_renamed(key, VAE_RULES): value for key, value in stored}
    return {
        key: value[..., None, None] if "attn_1" in key and value.dim() == 2 else value for key, value in named.items()
    }


def edit_json(path: Path, **changes: object) -> None:
    """Change some values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _unet(folder: Path, architecture: Architecture) -> dict[str, torch.Tensor]:
    tensors = {}
    for key, value in weights(folder, "unet").items():
        module, _, leaf = key.rpartition(".")
        tensors[f"{architecture.to_original('unet', module)}.{leaf}"] = value
    return tensors


def _clip(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"text_model.{key.removeprefix('text_model.')}": value for key, value in weights(folder, "text_encoder").items()
    }


def _open_clip(folder: Path) -> dict[str, torch.Tensor]:
    named = {_renamed(key, OPEN_CLIP_RULES): value for key, value in weights(folder, "text_encoder_2").items()}
    named["text_projection"] = named.pop("text_projection.weight").T
    named["logit_scale"] = torch.tensor(4.6052)
    for layer in sorted({key.split(".self_attn.")[0] for key in named if ".self_attn." in key}):
        for kind in ("weight", "bias"):
            parts = [named.pop(f"{layer}.self_attn.{x}_proj.{kind}") for x in "qkv"]
            named[f"{layer}.attn.in_proj_{kind}"] = torch.cat(parts)
    return named


def _renamed(key: str, rules: tuple[tuple[str, object], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)  # type: ignore[call-overload]
    return key
