"""The names and shapes of tensors in a single-file checkpoint, against diffusers' and transformers'.

The original layout (CompVis/stable-diffusion, Stability-AI/generative-models) keeps three things in another form:
OpenCLIP's q, k and v are one tensor, its text projection is the transpose of a Linear's weight, and the VAE's attention
is made of 1 x 1 convolutions. Square matrices fit either way round, which is why the rules say so and not the shapes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from torch import nn

from sdxl_mel.models.family import TEXT_ENCODERS, Component, Family, Part
from sdxl_mel.models.renaming import ITSELF, Block, Layout, Leaves, Renaming, Separator, unchanged

LAYERS_PER_BLOCK = 2
"""The UNet's setting of that name in every published base; `mini` has one."""
TEXT_MODEL = "text_model"
"""The module of a text encoder that holds its layers; transformers 5.6 dropped it from one class of two."""
Form = Literal["same", "third", "transposed", "convolution"]
Param = tuple[Part, str]
"""A part and diffusers' name of a tensor in it, with `text_model.` in the text encoders."""

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
CLIP = unchanged(
    (
        *(f"encoder.layers.{{n}}.self_attn.{leaf}_proj" for leaf in ("q", "k", "v", "out")),
        *(f"encoder.layers.{{n}}.{leaf}" for leaf in ("mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2")),
        *("embeddings.token_embedding", "embeddings.position_embedding", "final_layer_norm"),
    )
)
UNET_ENDS = (
    Block("conv_in", "input_blocks.0.0"),
    Block("conv_norm_out", "out.0"),
    Block("conv_out", "out.2"),
    Block("time_embedding.linear_1", "time_embed.0"),
    Block("time_embedding.linear_2", "time_embed.2"),
    Block("add_embedding.linear_1", "label_emb.0.0"),
    Block("add_embedding.linear_2", "label_emb.0.2"),
)
CLIP_BLOCKS = (Block(TEXT_MODEL, TEXT_MODEL, CLIP), Block("text_projection", "text_projection"))

THIRDS = ("q_proj", "k_proj", "v_proj")
IN_PROJECTION = "in_proj_"
BARE: dict[str, Form] = {"text_projection": "transposed", "positional_embedding": "same"}
"""OpenCLIP's tensors that are no module's weight."""

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


@dataclass(frozen=True)
class Architecture:
    """A family and its UNet's layers per block: all that the names of the original layout depend on."""

    family: Family
    layers_per_block: int = LAYERS_PER_BLOCK

    @property
    def modelspec(self) -> str:
        """Return Stability's name of the architecture: that of the family only with a published base's blocks."""
        return self.family.modelspec if self.is_published else f"small-{self.family.name}"

    @property
    def is_published(self) -> bool:
        """Return whether it has the blocks of a published base, as `mini` has not."""
        return self.layers_per_block == LAYERS_PER_BLOCK

    def modules(self, part: Part) -> Renaming:
        """Return the rules for a part's modules, as LoRA files name them: text encoders are transformers' in all."""
        return _rules("clip" if part in TEXT_ENCODERS else self.family.component(part).table, self._unet)

    def to_original(self, part: Part, path: str) -> str | None:
        """Return the original name of the module at a diffusers path, or None if the family has no such module."""
        return self.modules(part).to_original(path)

    def to_diffusers(self, part: Part, name: str, layout: Layout, separator: Separator = ".") -> str | None:
        """Return the diffusers path of a module named in any layout, or None if the family has no such module.

        A text encoder's path gets the `text_model.` that it may lack.
        """
        return self.modules(part).to_diffusers(with_text_model(part, name, separator), layout, separator)

    def stored_as(self, param: Param) -> Stored | None:
        """Return where a single file keeps a tensor, or None if the family has no such tensor."""
        part, name = param
        module, _, kind = name.rpartition(".")
        component = self.family.component(part)
        original = _rules(component.table, self._unet).to_original(module)
        if original is None:
            return None
        whole, leaf = component.original + original, module.rpartition(".")[2]
        if component.table == "open_clip":
            return _stored_open_clip(whole, original, leaf, kind)
        convolution = part == "vae" and ".attentions." in module and kind == "weight" and leaf != "group_norm"
        return Stored(f"{whole}.{kind}", "convolution" if convolution else "same")

    def kept_in(self, original: str) -> list[Param]:
        """Return the tensors in a single file's tensor: one, or q, k and v, or none of this family.

        The inverse of `stored_as`.
        """
        for component in self.family.components:
            if original.startswith(component.original):
                names = self._names(component, original.removeprefix(component.original))
                return [(component.part, name) for name in names]
        return []

    def _names(self, component: Component, original: str) -> list[str]:
        rules = _rules(component.table, self._unet)
        module, _, kind = original.rpartition(".")
        if component.table == "open_clip" and original in BARE:
            return [f"{rules.to_diffusers(original)}.weight"]
        if component.table == "open_clip" and kind.startswith(IN_PROJECTION):
            paths = [rules.to_diffusers(f"{module}.{third}") for third in THIRDS]
            return [f"{path}.{kind.removeprefix(IN_PROJECTION)}" for path in paths if path]
        path = rules.to_diffusers(with_text_model(component.part, module) if component.table == "clip" else module)
        return [f"{path}.{kind}"] if path else []

    @property
    def _unet(self) -> tuple[tuple[bool, ...], int]:
        return self.family.attention, self.layers_per_block


def with_text_model(part: Part, name: str, separator: Separator = ".") -> str:
    """Return the name of a module or tensor with the `text_model.` of a text encoder, whether it had it or not."""
    whole = part not in TEXT_ENCODERS or name.startswith((f"{TEXT_MODEL}{separator}", "text_projection"))
    return name if whole else f"{TEXT_MODEL}{separator}{name}"


def without_text_model(name: str) -> str:
    """Return the name of a module or tensor without `text_model.`."""
    return name.removeprefix(f"{TEXT_MODEL}.")


def module_paths(model: nn.Module, part: Part) -> dict[str, str]:
    """Return {path with `text_model.`: path in this model} of every module."""
    return {with_text_model(part, path): path for path, _ in model.named_modules() if path}


def canonical(part: Part, name: str) -> str:
    """Return diffusers' present name of a tensor in a diffusers folder, with `text_model.` in the text encoders."""
    if part != "vae":
        return with_text_model(part, name)
    *place, module, kind = name.split(".")
    return ".".join((*place, OLD_VAE_ATTENTION.get(module, module), kind)) if place else name


def _stored_open_clip(whole: str, original: str, leaf: str, kind: str) -> Stored:
    if leaf in THIRDS:
        return Stored(f"{whole.rpartition('.')[0]}.{IN_PROJECTION}{kind}", "third", THIRDS.index(leaf))
    if original in BARE:
        return Stored(whole, BARE[original])
    return Stored(f"{whole}.{kind}")


@cache
def _rules(table: str, unet: tuple[tuple[bool, ...], int]) -> Renaming:
    match table:
        case "unet":
            return Renaming(_unet_blocks(*unet))
        case "vae":
            return Renaming(_vae_blocks())
        case "open_clip":
            return Renaming(OPEN_CLIP_BLOCKS)
        case _:
            return Renaming(CLIP_BLOCKS)


def _unet_blocks(attention: tuple[bool, ...], layers_per_block: int) -> Iterator[Block]:
    stride, last = layers_per_block + 1, len(attention) - 1
    yield from UNET_ENDS
    yield Block("mid_block.resnets.0", "middle_block.0", RESNET)
    yield Block("mid_block.attentions.0", "middle_block.1", TRANSFORMER)
    yield Block("mid_block.resnets.1", "middle_block.2", RESNET)
    for i, attends in enumerate(attention):
        for j in range(layers_per_block):
            yield Block(f"down_blocks.{i}.resnets.{j}", f"input_blocks.{stride * i + j + 1}.0", RESNET)
            if attends:
                yield Block(f"down_blocks.{i}.attentions.{j}", f"input_blocks.{stride * i + j + 1}.1", TRANSFORMER)
        if i < last:
            yield Block(f"down_blocks.{i}.downsamplers.0.conv", f"input_blocks.{stride * (i + 1)}.0.op")
    for i, attends in enumerate(reversed(attention)):
        for j in range(stride):
            yield Block(f"up_blocks.{i}.resnets.{j}", f"output_blocks.{stride * i + j}.0", RESNET)
            if attends:
                yield Block(f"up_blocks.{i}.attentions.{j}", f"output_blocks.{stride * i + j}.1", TRANSFORMER)
        if i < last:
            place = f"{stride * i + layers_per_block}.{2 if attends else 1}"
            yield Block(f"up_blocks.{i}.upsamplers.0.conv", f"output_blocks.{place}.conv")


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
