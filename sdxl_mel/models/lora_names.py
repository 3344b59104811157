"""The names of SDXL's modules: one table of rules from which every LoRA dialect and the checkpoint layout are derived.

A module has a path in diffusers ("down_blocks.1.attentions.0.proj_in") and one in the original code
("input_blocks.4.1.proj_in", Stability-AI/generative-models). kohya's files spell the original path with underscores.
"""

from collections.abc import Iterator
from functools import cache
from typing import Literal

from sdxl_mel.models.renaming import Block, Layout, Leaves, Renaming, Separator, unchanged

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
