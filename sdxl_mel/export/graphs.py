"""The models of a base as ONNX graphs: text encoders, UNet and decoder, each checked against torch."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from sdxl_mel.diffusion.conditioning import TIME_IDS, TextEmbeddings, time_ids, unet_conditions
from sdxl_mel.export.factors import Factors
from sdxl_mel.export.upsampling import transpose_upsampling
from sdxl_mel.models.base import Base
from sdxl_mel.models.family import pooled_width
from sdxl_mel.models.sdxl import join_encoders
from sdxl_mel.models.text_encoding import encode_tokens
from sdxl_mel.models.vae import unscale_latents
from sdxl_mel.seeding import torch_generator
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
"""GroupNormalization and Attention of later opsets are 40 % slower in onnxruntime's WebAssembly."""
TOKENS = 77
COLUMNS = 4
"""The UNet halves its picture twice, so a width is a multiple of so many latents."""
MOST_AT_ONCE = 63
"""diffusers goes another way from a batch of 64 on."""


class TextGraph(nn.Module):
    """`ids`, `ids_2` (n, 77) -> `hidden` (n, 77, width), `pooled` (n, projection)."""

    def __init__(self, base: Base, clip_skip: int) -> None:
        super().__init__()
        self.first, self.second = base.text_encoder, base.text_encoder_2
        self.ends = (base.tokenizer.eos_token_id, base.tokenizer_2.eos_token_id)
        self.clip_skip = clip_skip

    def forward(self, ids: Tensor, ids_2: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `encode_prompts` makes of the texts of these tokens."""
        first, second = encode_tokens(self.first, ids, self.ends[0]), encode_tokens(self.second, ids_2, self.ends[1])
        text = join_encoders(first, second, self.second.text_projection, self.clip_skip)
        return text.prompt_embeds, text.pooled_prompt_embeds


class UnetGraph(nn.Module):
    """`latents` (b, 4, h, w), `timestep` (1,), `hidden` (b, t, width), `pooled`, `sizes` (b, 6) -> `noise`."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, timestep: Tensor, hidden: Tensor, pooled: Tensor, sizes: Tensor) -> Tensor:
        """Return the UNet's prediction."""
        conditions = unet_conditions(TextEmbeddings(hidden, pooled), sizes)
        return self.unet(latents, timestep, **conditions, return_dict=False)[0]


class DecoderGraph(nn.Module):
    """Scaled `latents` (b, 4, h, w) -> picture `values` (b, 1 or 3, height, width) in 0..1, row 0 at the top."""

    def __init__(self, vae: Any, channels: int) -> None:
        super().__init__()
        self.vae, self.channels = vae, channels

    def forward(self, latents: Tensor) -> Tensor:
        """Return what `decode_latents` makes of them before it rounds."""
        images = self.vae.decode(unscale_latents(latents, self.vae.config.scaling_factor)).sample
        values = (images / 2.0 + 0.5).clamp(0.0, 1.0)
        return values.mean(dim=1, keepdim=True) if self.channels == 1 else values


@dataclass(frozen=True)
class Part:
    """A model to be exported: inputs by name, the axes of each that may vary, and the names of the outputs.

    Weights that are `kept` stay apart under their names: neither folded into others nor taken for equal ones.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    axes: Mapping[str, Mapping[int, Any]]
    outputs: tuple[str, ...]
    kept: tuple[str, ...] = ()

    def narrowed(self) -> dict[str, Tensor]:
        """Return the inputs at another size: one of the batch, and half of the columns."""
        first = {name: each[:1] for name, each in self.inputs.items()}
        columns = {name: each.shape[3] // 2 // COLUMNS * COLUMNS for name, each in first.items() if each.ndim == 4}
        return first | {name: first[name][..., :count].contiguous() for name, count in columns.items()}


def text_part(base: Base, clip_skip: int) -> Part:
    """Return both text encoders as one part."""
    generator = torch_generator(0, "export", "text")
    inputs = {}
    for name, tokenizer in (("ids", base.tokenizer), ("ids_2", base.tokenizer_2)):
        ids = torch.randint(0, tokenizer.bos_token_id, (2, TOKENS), generator=generator)
        ids[:, 0], ids[0, 9:], ids[1, -1] = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.eos_token_id
        inputs[name] = ids
    batch = Dim("n")
    axes = {name: {0: batch} for name in inputs}
    return Part("text", TextGraph(base, clip_skip).eval(), inputs, axes, ("hidden", "pooled"))


def unet_part(unet: Any, spec: MelSpec, factors: Factors | None = None) -> Part:
    """Return the UNet as a part, with the factors that stand beside its weights."""
    generator, config = torch_generator(0, "export", "unet"), unet.config
    height, width = spec.n_mels // LATENT_FACTOR, spec.width // LATENT_FACTOR
    inputs = {
        "latents": torch.randn(2, config.in_channels, height, width, generator=generator),
        "timestep": torch.tensor([601.0]),
        "hidden": torch.randn(2, TOKENS, config.cross_attention_dim, generator=generator),
        "pooled": torch.randn(2, pooled_width(config), generator=generator),
        "sizes": time_ids(spec.n_mels, spec.width).expand(2, TIME_IDS).contiguous(),
    }
    batch = Dim("b", max=MOST_AT_ONCE)
    axes: dict[str, dict[int, Any]] = {name: {} if name == "timestep" else {0: batch} for name in inputs}
    axes["latents"][3], axes["hidden"][1] = COLUMNS * Dim("w"), Dim("t")
    return Part("unet", UnetGraph(unet).eval(), inputs, axes, ("noise",), factors.names() if factors else ())


def decoder_part(name: str, vae: Any, spec: MelSpec) -> Part:
    """Return the decoder of a VAE as a part, its upsampling layers changed in place."""
    transpose_upsampling(vae)
    height, width = spec.n_mels // LATENT_FACTOR, spec.width // LATENT_FACTOR
    inputs = {"latents": torch.randn(2, 4, height, width, generator=torch_generator(0, "export", name))}
    axes = {"latents": {0: Dim("b", max=MOST_AT_ONCE), 3: Dim("w")}}
    return Part(name, DecoderGraph(vae, 1 if spec.channels == "grey" else 3).eval(), inputs, axes, ("values",))


def to_onnx(part: Part) -> "ModelProto":
    """Return a part as an ONNX model with float32 weights, without the traces of where in Python it was made."""
    with _quiet():
        program = torch.onnx.export(
            part.module,
            tuple(part.inputs.values()),
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_shapes=tuple(part.axes.values()),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        # What is an input of the graph is let alone.
        kept = [program.model.graph.initializers[name] for name in part.kept]
        program.model.graph.inputs.extend(kept)
        program.optimize()
        for value in kept:
            program.model.graph.inputs.remove(value)
    model = program.model_proto
    del model.metadata_props[:], model.functions[:], model.graph.value_info[:], model.graph.metadata_props[:]
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter and its optimizer say of their own steps out of a person's way."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
