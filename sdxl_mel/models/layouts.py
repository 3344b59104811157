"""The names and shapes of tensors in a single-file SDXL checkpoint, against diffusers' and transformers'.

The original layout (Stability-AI/generative-models) keeps three things in another form: OpenCLIP's q, k and v are one
tensor, its text projection is the transpose of a Linear's weight, and the VAE's attention is made of 1 x 1
convolutions. Square matrices fit either way round, which is why the rules say so and not the shapes.
"""

from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple

from sdxl_mel.models.renaming import ITSELF, Block, Layout, Leaves, Renaming, Separator, unchanged

Part = Literal["unet", "text_encoder", "text_encoder_2"]

PARTS: tuple[Part, ...] = ("unet", "text_encoder", "text_encoder_2")
SDXL_LAYERS_PER_BLOCK = 2
MAX_LEVELS = 4
"""SDXL has three resolutions, SD 1.5 four: enough to name what a foreign file holds."""

# A UNet's kinds of block and what lies below them: diffusers, original.
RESNET: Leaves = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
TRANSFORMER = unchanged(
    (
        *("norm", "proj_in", "proj_out"),
        *(f"transformer_blocks.{{n}}.attn{a}.{leaf}" for a in (1, 2) for leaf in ("to_q", "to_k", "to_v", "to_out.0")),
        *(f"transformer_blocks.{{n}}.{leaf}" for leaf in ("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3")),
    )
)
TEXT = unchanged(
    (
        *(f"encoder.layers.{{n}}.self_attn.{leaf}_proj" for leaf in ("q", "k", "v", "out")),
        *(f"encoder.layers.{{n}}.{leaf}" for leaf in ("mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2")),
        *("embeddings.token_embedding", "embeddings.position_embedding", "final_layer_norm"),
    )
)
OUTSIDE = (
    Block("conv_in", "input_blocks.0.0"),
    Block("conv_norm_out", "out.0"),
    Block("conv_out", "out.2"),
    Block("time_embedding.linear_1", "time_embed.0"),
    Block("time_embedding.linear_2", "time_embed.2"),
    Block("add_embedding.linear_1", "label_emb.0.0"),
    Block("add_embedding.linear_2", "label_emb.0.2"),
)


@cache
def renaming(part: Part, layers_per_block: int = SDXL_LAYERS_PER_BLOCK) -> Renaming:
    """Return the rules of a part; `layers_per_block` is the UNet's setting of that name, on which numbers depend."""
    if part == "unet":
        return Renaming(_unet_blocks(layers_per_block))
    return Renaming([Block("text_model", "text_model", TEXT), Block("text_projection", "text_projection")])


def _unet_blocks(layers_per_block: int) -> Iterator[Block]:
    stride = layers_per_block + 1
    yield from OUTSIDE
    yield Block("mid_block.resnets.0", "middle_block.0", RESNET)
    yield Block("mid_block.attentions.0", "middle_block.1", TRANSFORMER)
    yield Block("mid_block.resnets.1", "middle_block.2", RESNET)
    for i in range(MAX_LEVELS):
        for j in range(layers_per_block):
            yield Block(f"down_blocks.{i}.resnets.{j}", f"input_blocks.{stride * i + j + 1}.0", RESNET)
            yield Block(f"down_blocks.{i}.attentions.{j}", f"input_blocks.{stride * i + j + 1}.1", TRANSFORMER)
        yield Block(f"down_blocks.{i}.downsamplers.0.conv", f"input_blocks.{stride * (i + 1)}.0.op")
        for j in range(stride):
            yield Block(f"up_blocks.{i}.resnets.{j}", f"output_blocks.{stride * i + j}.0", RESNET)
            yield Block(f"up_blocks.{i}.attentions.{j}", f"output_blocks.{stride * i + j}.1", TRANSFORMER)
        yield Block(f"up_blocks.{i}.upsamplers.0.conv", f"output_blocks.{stride * i + layers_per_block}.2.conv")


def spell(part: Part, path: str, layers_per_block: int = SDXL_LAYERS_PER_BLOCK) -> str | None:
    """Return the original name of the module at a diffusers path, or None if SDXL has no such module."""
    return renaming(part, layers_per_block).to_original(path)


def parse(
    part: Part, name: str, layout: Layout, separator: Separator, layers_per_block: int = SDXL_LAYERS_PER_BLOCK
) -> str | None:
    """Return the diffusers path of a module spelt in any layout, or None if SDXL has no such module.

    A text encoder's path gets the `text_model.` that transformers 5.6 dropped from CLIPTextModel.
    """
    flattened = part != "unet" and not name.startswith((f"text_model{separator}", "text_projection"))
    whole = f"text_model{separator}{name}" if flattened else name
    return renaming(part, layers_per_block).to_diffusers(whole, layout, separator)


AnyPart = Part | Literal["vae"]
Form = Literal["same", "third", "transposed", "convolution"]

ALL_PARTS: tuple[AnyPart, ...] = (*PARTS, "vae")
PREFIXES: dict[AnyPart, str] = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "conditioner.embedders.0.transformer.",
    "text_encoder_2": "conditioner.embedders.1.model.",
}
LOGIT_SCALE = f"{PREFIXES['text_encoder_2']}logit_scale"
THIRDS = ("q_proj", "k_proj", "v_proj")

OPEN_CLIP: Leaves = tuple(
    (f"layers.{{n}}.{leaf}", f"resblocks.{{n}}.{other}")
    for leaf, other in (
        *((f"self_attn.{name}", f"attn.{name}") for name in (*THIRDS, "out_proj")),
        *(("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2")),
    )
)
OPEN_CLIP_BLOCKS = (
    Block("text_model.encoder", "transformer", OPEN_CLIP),
    Block("text_model.embeddings.token_embedding", "token_embedding"),
    Block("text_model.embeddings.position_embedding", "positional_embedding"),
    Block("text_model.final_layer_norm", "ln_final"),
    Block("text_projection", "text_projection"),
)

VAE_LEVELS = 4
VAE_RESNET: Leaves = (
    *((name, name) for name in ("norm1", "conv1", "norm2", "conv2")),
    ("conv_shortcut", "nin_shortcut"),
)
VAE_ATTENTION: Leaves = (
    *(("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")),
)
OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""How diffusers before 0.17 spelt them; published folders still do."""


class Stored(NamedTuple):
    """Where a tensor of diffusers lies in a single file: the file's name for it, in which form, which third of it."""

    name: str
    form: Form = "same"
    third: int = 0


@cache
def _rules(part: AnyPart, layers_per_block: int) -> Renaming:
    if part == "vae":
        return Renaming(_vae_blocks())
    return Renaming(OPEN_CLIP_BLOCKS) if part == "text_encoder_2" else renaming(part, layers_per_block)


def _vae_blocks() -> list[Block]:
    blocks = [Block("quant_conv", "quant_conv"), Block("post_quant_conv", "post_quant_conv")]
    for side in ("encoder", "decoder"):
        for name, other in (("conv_in", "conv_in"), ("conv_norm_out", "norm_out"), ("conv_out", "conv_out")):
            blocks.append(Block(f"{side}.{name}", f"{side}.{other}", ITSELF))
        blocks.append(Block(f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1", VAE_ATTENTION))
        blocks += [Block(f"{side}.mid_block.resnets.{j}", f"{side}.mid.block_{j + 1}", VAE_RESNET) for j in (0, 1)]
    for i in range(VAE_LEVELS):
        up = VAE_LEVELS - 1 - i  # the original numbers the decoder's levels from the picture inwards
        for j in range(3):
            blocks.append(Block(f"encoder.down_blocks.{i}.resnets.{j}", f"encoder.down.{i}.block.{j}", VAE_RESNET))
            blocks.append(Block(f"decoder.up_blocks.{i}.resnets.{j}", f"decoder.up.{up}.block.{j}", VAE_RESNET))
        blocks.append(Block(f"encoder.down_blocks.{i}.downsamplers.0.conv", f"encoder.down.{i}.downsample.conv"))
        blocks.append(Block(f"decoder.up_blocks.{i}.upsamplers.0.conv", f"decoder.up.{up}.upsample.conv"))
    return blocks


def canonical(part: AnyPart, name: str) -> str:
    """Return diffusers' present name of a tensor in a diffusers folder, with `text_model.` in the text encoders."""
    if part in ("text_encoder", "text_encoder_2"):
        return name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}"
    if part == "vae":
        *place, module, kind = name.split(".")
        return ".".join((*place, OLD_VAE_ATTENTION.get(module, module), kind)) if place else name
    return name


def stored_as(part: AnyPart, name: str, layers_per_block: int = SDXL_LAYERS_PER_BLOCK) -> Stored | None:
    """Return where a single file keeps the tensor `name` (canonical), or None if SDXL has no such tensor."""
    module, _, kind = name.rpartition(".")
    original = _rules(part, layers_per_block).to_original(module)
    if original is None:
        return None
    whole = PREFIXES[part] + original
    leaf = module.rpartition(".")[2]
    if part == "text_encoder_2" and ".self_attn." in module and leaf in THIRDS:
        return Stored(f"{whole.rpartition('.')[0]}.in_proj_{kind}", "third", THIRDS.index(leaf))
    if part == "text_encoder_2" and original == "text_projection":
        return Stored(whole, "transposed")
    if part == "text_encoder_2" and original == "positional_embedding":
        return Stored(whole)
    convolution = part == "vae" and ".attentions." in module and kind == "weight" and leaf != "group_norm"
    return Stored(f"{whole}.{kind}", "convolution" if convolution else "same")


def kept_in(original: str, layers_per_block: int = SDXL_LAYERS_PER_BLOCK) -> list[tuple[AnyPart, str]] | None:
    """Return the tensors (part, canonical name) in a single file's tensor: one, or q, k and v; None for none of SDXL's.

    The inverse of `stored_as`.
    """
    for part in ALL_PARTS:
        if original.startswith(PREFIXES[part]):
            names = _parsed(part, original.removeprefix(PREFIXES[part]), layers_per_block)
            return [(part, name) for name in names] or None
    return None


def _parsed(part: AnyPart, name: str, layers_per_block: int) -> list[str]:
    rules = _rules(part, layers_per_block)
    if part == "text_encoder_2" and name in ("text_projection", "positional_embedding"):
        return [f"{rules.to_diffusers(name)}.weight"]
    module, _, kind = name.rpartition(".")
    if part == "text_encoder_2" and kind.startswith("in_proj_"):
        paths = [rules.to_diffusers(f"{module}.{third}") for third in THIRDS]
        return [f"{path}.{kind.removeprefix('in_proj_')}" for path in paths if path]
    path = rules.to_diffusers(module)
    return [f"{path}.{kind}"] if path else []
