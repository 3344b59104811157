"""What is exported, opened: a base with LoRAs in its weights, or beside them."""

from collections.abc import Sequence
from importlib.util import find_spec
from math import prod
from typing import NamedTuple

from sdxl_mel.errors import InputError, MissingError
from sdxl_mel.export.description import Chosen
from sdxl_mel.export.factors import Factors, put_factors
from sdxl_mel.export.options import LARGEST_MODEL
from sdxl_mel.models.base import find_source, open_base
from sdxl_mel.models.family import PARTS
from sdxl_mel.models.lora.scaled import ScaledLora, read_loras
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.sound.melspec import named_spec
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.stack import ALWAYS, chosen_layers, parse_acting, without_unet
from sdxl_mel.synthesis.trained import Stated

LIBRARIES = ("onnx", "onnxruntime", "onnxscript")


class Opened(NamedTuple):
    """A base with what is fused into it, and the factors beside its UNet's weights."""

    generator: Generator
    factors: Factors | None


def open_chosen(chosen: Chosen, step_lora: str | None = None) -> Opened:
    """Open what is exported, and a step adapter in the weights of its UNet.

    Raises InputError for a base or a LoRA that cannot be exported, MissingError without the libraries that it takes.
    """
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise MissingError(f"sdxl-mel export needs {' and '.join(missing)}; pip install 'sdxl-mel[export]'")
    _require_small_sdxl(chosen.base)
    base, loras = open_base(chosen.base, vae=chosen.vae), _read(chosen.loras)
    apart = loras if chosen.lora_mode == "factors" else []
    fused = [without_unet(lora) for lora in apart] or loras
    fused += _read([step_lora]) if step_lora else []
    stated = Stated(named_spec(chosen.preset) if chosen.preset else None, chosen.anchor, chosen.clip_skip)
    generator = Generator(base, stated=stated, loras=fused, keep_base=False)
    return Opened(generator, put_factors(base, apart, chosen.lora_rank) if chosen.lora_mode == "factors" else None)


def require_step_adapter(text: str) -> None:
    """Raise InputError for a LoRA that does not say in its header how it is drawn in few steps."""
    ((_, lora, _),) = _read([text])
    if lora.header.drawing.sampler is None and lora.header.drawing.timesteps is None:
        raise InputError(
            f"--step-lora {text}: no step adapter (its header names neither sampler nor timesteps); give it as --lora"
        )


def _require_small_sdxl(base: str) -> None:
    """Raise InputError, before any weight is read, for a base that is not of SDXL's family or too large."""
    source = find_source(base, PARTS)
    if source.family is not SDXL:
        raise InputError(f"--base {base}: is {source.family.title}; exported are students of SDXL, such as mini")
    checkpoint = source.checkpoint(("unet",))
    parameters = sum(prod(checkpoint.type_of(param).shape) for param in checkpoint.places)
    if 4 * parameters > LARGEST_MODEL:
        raise InputError(
            f"--base {base}: its UNet has {parameters // 10**6} M parameters, a browser holds up to "
            f"{LARGEST_MODEL // 4_000_000} M; export a student of it"
        )


def _read(texts: Sequence[str]) -> list[ScaledLora]:
    parsed = [parse_acting(text) for text in texts]
    for text, (_, acting) in zip(texts, parsed):
        if acting.interval != ALWAYS:
            raise InputError(f"--lora {text}: an exported LoRA acts at all noise levels; leave the interval out")
    loras = read_loras([file for file, _ in parsed])
    return [chosen_layers(lora, acting.layers) for lora, (_, acting) in zip(loras, parsed)]
