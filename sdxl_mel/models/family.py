"""What a base model is: parts and their files, how text is encoded, what else the UNet is told, LoRA names, defaults.

A family is one value of `Family`, made in a module of its own beside this one and listed in `families`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sdxl_mel.diffusion.conditioning import TIME_IDS, TextEmbeddings
from sdxl_mel.models.renaming import Layout
from sdxl_mel.options import Precision

Part = Literal["unet", "vae", "text_encoder", "text_encoder_2"]
PARTS: tuple[Part, ...] = ("unet", "vae", "text_encoder", "text_encoder_2")
"""Every part that any family has."""
TEXT_ENCODERS: tuple[Part, ...] = ("text_encoder", "text_encoder_2")
ADAPTABLE: tuple[Part, ...] = ("unet", *TEXT_ENCODERS)
"""The parts that a LoRA can change."""

DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Config = Mapping[str, Any]
Configs = Mapping[str, Config]


def weights_stem(part: Part) -> str:
    """Return what the names of a part's weight files in a diffusers folder start with."""
    return "model" if part in TEXT_ENCODERS else "diffusion_pytorch_model"


def precision_of(dtype: torch.dtype) -> Precision:
    """Return fp32, fp16 or bf16."""
    return next(name for name, known in DTYPES.items() if known == dtype)


@dataclass(frozen=True)
class Component:
    """One part as a family has it: its class, where the original layout keeps it, and the table of its names there.

    `kohya` is what its keys in kohya's LoRA files start with, `tokenizer` the folder of a text encoder's tokenizer, and
    `padding` the token with which that fills up.
    """

    part: Part
    class_name: str
    original: str
    table: Literal["unet", "vae", "clip", "open_clip"]
    kohya: str = ""
    tokenizer: str = ""
    padding: str = "<|endoftext|>"


UNET = Component("unet", "UNet2DConditionModel", "model.diffusion_model.", "unet", kohya="lora_unet_")
VAE = Component("vae", "AutoencoderKL", "first_stage_model.", "vae")


@dataclass(frozen=True, eq=False, repr=False)
class Family:
    """Everything that differs from one kind of base to another.

    `name` is what files say, `title` and `needed` what people read. `attention` says which levels of the UNet have
    transformers, from the picture inwards; `kohya_layout` which names of the UNet's modules kohya's files have;
    `text_width` what its UNet attends to, `other_widths` what a LoRA of another width is of. `recognises` decides from
    configs and the pipeline's class, `instead` names a relative that is no base of this family, `problems` says what
    does not fit together. `time_ids` makes what the UNet is told of (height, width), None for nothing.
    """

    name: str
    title: str
    needed: str
    text_encoders: tuple[Component, ...]
    attention: tuple[bool, ...]
    kohya_layout: Layout
    text_width: int
    other_widths: Mapping[int, str]
    encode_prompts: Callable[[Any, Sequence[str], int], TextEmbeddings]
    time_ids: Callable[[int, int], Tensor | None]
    recognises: Callable[[Configs, str], bool]
    instead: Callable[[Configs], str]
    problems: Callable[[Configs], Iterator[str]]
    modelspec: str
    lora_implementation: str
    kohya_version: str
    resolution: str
    guidance: float

    def __repr__(self) -> str:
        """Return the name: a family is one of a kind."""
        return f"Family({self.name!r})"

    @property
    def components(self) -> tuple[Component, ...]:
        """Return all parts, in the order of `PARTS`."""
        return (UNET, VAE, *self.text_encoders)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return the names of all parts."""
        return tuple(component.part for component in self.components)

    def component(self, part: Part) -> Component:
        """Return one part."""
        return next(component for component in self.components if component.part == part)


def pooled_width(unet: Config) -> int:
    """Return how many numbers of pooled text a UNet with this config takes; 0 for one that takes none."""
    if unet.get("addition_embed_type") != "text_time":
        return 0
    return int(unet["projection_class_embeddings_input_dim"] - TIME_IDS * unet["addition_time_embed_dim"])


def shape_problems(unet: Config, text_encoders: Sequence[Config | None]) -> Iterator[str]:
    """Yield what is wrong with a UNet's channels, and with its text width where every text encoder is there."""
    if unet.get("in_channels") != 4 or unet.get("out_channels") != 4:
        yield f"its UNet has {unet.get('in_channels')} channels in and {unet.get('out_channels')} out"
    known = [config for config in text_encoders if config is not None]
    width = sum(config["hidden_size"] for config in known)
    if len(known) == len(text_encoders) and unet.get("cross_attention_dim") != width:
        yield f"its UNet attends to {unet.get('cross_attention_dim')} channels, its text encoders give {width}"
