"""The names of SDXL's modules: one table of rules from which every LoRA dialect and the checkpoint layout are derived.

A module has a path in diffusers ("down_blocks.1.attentions.0.proj_in") and one in the original code
("input_blocks.4.1.proj_in", Stability-AI/generative-models). kohya's files spell the original path with underscores.
A path is a block followed by a leaf; a rule is a pair of spellings, in which {n} stands for any number.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple

Part = Literal["unet", "text_encoder", "text_encoder_2"]
Layout = Literal["diffusers", "original"]
Separator = Literal[".", "_"]

PARTS: tuple[Part, ...] = ("unet", "text_encoder", "text_encoder_2")
SDXL_LAYERS_PER_BLOCK = 2
MAX_LEVELS = 4
"""SDXL has three resolutions, SD 1.5 four: enough to name what a foreign file holds."""

# A UNet's kinds of block and what lies below them: diffusers, original.
RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TRANSFORMER = tuple(
    (name, name)
    for name in (
        *("norm", "proj_in", "proj_out"),
        *(f"transformer_blocks.{{n}}.attn{a}.{leaf}" for a in (1, 2) for leaf in ATTENTION),
        *(f"transformer_blocks.{{n}}.{leaf}" for leaf in ("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3")),
    )
)
ITSELF = (("", ""),)
TEXT = tuple(
    (name, name)
    for name in (
        *(f"encoder.layers.{{n}}.self_attn.{x}_proj" for x in "qkv"),
        "encoder.layers.{n}.self_attn.out_proj",
        *(f"encoder.layers.{{n}}.{leaf}" for leaf in ("mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2")),
        *("embeddings.token_embedding", "embeddings.position_embedding", "final_layer_norm"),
    )
)
OUTSIDE = (
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
)

Leaves = tuple[tuple[str, str], ...]


class Block(NamedTuple):
    """A place in a model in both layouts, and the leaves below it."""

    diffusers: str
    original: str
    leaves: Leaves

    def path(self, layout: Layout) -> str:
        """Return the block's path in one layout."""
        return self.diffusers if layout == "diffusers" else self.original


Patterns = tuple[tuple[str, re.Pattern[str], Block], ...]


def blocks(part: Part, layers_per_block: int = SDXL_LAYERS_PER_BLOCK) -> Iterator[Block]:
    """Yield every block that a part can have; `layers_per_block` is the UNet's setting of that name (SDXL: 2)."""
    if part != "unet":
        yield Block("text_model", "text_model", TEXT)
        yield Block("text_projection", "text_projection", ITSELF)
        return
    yield from (Block(diffusers, original, ITSELF) for diffusers, original in OUTSIDE)
    yield Block("mid_block.resnets.0", "middle_block.0", RESNET)
    yield Block("mid_block.attentions.0", "middle_block.1", TRANSFORMER)
    yield Block("mid_block.resnets.1", "middle_block.2", RESNET)
    stride = layers_per_block + 1
    for i in range(MAX_LEVELS):
        for j in range(layers_per_block):
            yield Block(f"down_blocks.{i}.resnets.{j}", f"input_blocks.{stride * i + j + 1}.0", RESNET)
            yield Block(f"down_blocks.{i}.attentions.{j}", f"input_blocks.{stride * i + j + 1}.1", TRANSFORMER)
        yield Block(f"down_blocks.{i}.downsamplers.0.conv", f"input_blocks.{stride * (i + 1)}.0.op", ITSELF)
        for j in range(stride):
            yield Block(f"up_blocks.{i}.resnets.{j}", f"output_blocks.{stride * i + j}.0", RESNET)
            yield Block(f"up_blocks.{i}.attentions.{j}", f"output_blocks.{stride * i + j}.1", TRANSFORMER)
        last = stride * i + layers_per_block
        yield Block(f"up_blocks.{i}.upsamplers.0.conv", f"output_blocks.{last}.2.conv", ITSELF)


def spell(part: Part, path: str, layers_per_block: int = SDXL_LAYERS_PER_BLOCK) -> str | None:
    """Return the original name of the module at a diffusers path, or None if SDXL has no such module."""
    patterns = _compiled(part, "diffusers", ".", layers_per_block)
    return _translate(path, patterns, "original")


def parse(
    part: Part, name: str, layout: Layout, separator: Separator, layers_per_block: int = SDXL_LAYERS_PER_BLOCK
) -> str | None:
    """Return the diffusers path of a module spelt in any layout, or None if SDXL has no such module.

    A text encoder's path gets the `text_model.` that transformers 5.6 dropped from CLIPTextModel.
    """
    flattened = part != "unet" and not name.startswith((f"text_model{separator}", "text_projection"))
    whole = f"text_model{separator}{name}" if flattened else name
    return _translate(whole, _compiled(part, layout, separator, layers_per_block), "diffusers")


def _translate(name: str, patterns: Patterns, target: Layout) -> str | None:
    for prefix, pattern, block in patterns:
        if not name.startswith(prefix):
            continue
        match = pattern.fullmatch(name, len(prefix))
        if match:
            leaf, numbers = _leaf_of(match, block, target)
            whole = f"{block.path(target)}.{leaf}" if leaf else block.path(target)
            return whole.format(n=numbers)
    return None


def _leaf_of(match: re.Match[str], block: Block, target: Layout) -> tuple[str, str | None]:
    """Return the leaf of the rule that matched, in the target layout, and the number in it."""
    groups = match.groupdict()
    index = next(index for index in range(len(block.leaves)) if groups[f"rule{index}"] is not None)
    return block.leaves[index][target == "original"], groups.get(f"n{index}")


@cache
def _compiled(part: Part, layout: Layout, separator: Separator, layers_per_block: int) -> Patterns:
    return tuple(
        (
            block.path(layout).replace(".", separator),
            _pattern(block.leaves, layout, separator),
            block,
        )
        for block in blocks(part, layers_per_block)
    )


@cache
def _pattern(leaves: Leaves, layout: Layout, separator: Separator) -> re.Pattern[str]:
    """Return a pattern with a group per rule; a leaf is preceded by a separator, the block itself is not."""
    rules = []
    for index, pair in enumerate(leaves):
        leaf = pair[layout == "original"].replace(".", separator)
        text = re.escape(f"{separator}{leaf}" if leaf else "").replace(r"\{n\}", rf"(?P<n{index}>\d+)")
        rules.append(f"(?P<rule{index}>{text})")
    return re.compile("|".join(rules))
