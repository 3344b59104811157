"""Open what draws: the base, the LoRA on it, and the picture format, anchor and clip skip they were trained with."""

from dataclasses import dataclass
from typing import Any

import torch

from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.header import guidance_of, read_model_header
from sdxl_mel.models.lora.adapters import attach_lora
from sdxl_mel.models.lora.file import LoraHeader, read_lora
from sdxl_mel.record import sha256_file
from sdxl_mel.sound.melspec import MelSpec, named_spec, require_equal
from sdxl_mel.synthesis.settings import Config

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class Models:
    """A base ready to draw, and what its training fixed or found good."""

    base: Base
    spec: MelSpec
    anchor: str
    clip_skip: int
    guidance: float
    device: str
    dtype: str
    offload: bool
    inputs: dict[str, str]

    def on_device(self, model: Any) -> Any:
        """Return a model on the device, moved there now if it waits elsewhere."""
        return model.to(self.device)

    def rest(self, model: Any) -> None:
        """Take a model off the device until it works again, where memory is short."""
        if self.offload:
            model.to("cpu")


def open_models(config: Config) -> Models:
    """Open the base and the LoRA. Raises MismatchError when they, or the stated settings, do not belong together."""
    lora = read_lora(config.lora) if config.lora else None
    device = _device(config.device)
    dtype = config.dtype if config.dtype != "auto" else "fp32" if device == "cpu" else "fp16"
    place = "cpu" if config.offload else device
    base = open_base(config.base, dtype=DTYPES[dtype], vae=config.vae, device=place)
    fused = read_model_header(base.source.path) or LoraHeader()
    header = lora.header if lora else fused
    spec = _spec(config, header, base)
    inputs = {f"base {part}": digest for part, digest in base.identity.items()}
    if lora is not None and config.lora is not None:
        _require_same_base(config, header, base)
        adapters = attach_lora(base, lora, config.lora_scale)
        for layer in adapters.layers.values():
            # Merged, it costs nothing per step, and a circular convolution is circular for the adapter too.
            layer.merge()
        for model in (base.unet, *base.text_encoders):
            model.to(place)
        inputs["lora"] = _digest(config)
    if config.slicing:
        base.unet.set_attention_slice("auto")
        base.vae.enable_slicing()
    found = guidance_of(header, fused, default=base.family.guidance)
    return Models(
        base=base,
        spec=spec,
        anchor=_stated("--anchor", config.anchor, header.anchor or fused.anchor) or "",
        clip_skip=_stated("--clip-skip", config.clip_skip, header.clip_skip if header.spec else None) or 0,
        guidance=found if config.guidance is None else config.guidance,
        device=device,
        dtype=dtype,
        offload=config.offload,
        inputs=inputs,
    )


def _spec(config: Config, header: LoraHeader, base: Base) -> MelSpec:
    sources = {
        f"--lora {config.lora}": header.spec if config.lora else None,
        f"--base {config.base}": base.spec,
        f"--preset {config.preset}": named_spec(config.preset) if config.preset else None,
    }
    said = {name: spec for name, spec in sources.items() if spec is not None}
    if not said:
        raise InputError(
            f"neither --base {config.base} nor a LoRA says what pictures it draws; state it with --preset NAME"
        )
    (first_name, first), *others = said.items()
    for name, spec in others:
        require_equal(first, spec, first_name, name)
    return first


def _require_same_base(config: Config, header: LoraHeader, base: Base) -> None:
    differing = [
        part for part, digest in header.base.items() if part in base.identity and base.identity[part] != digest
    ]
    if differing:
        raise MismatchError(
            f"{config.lora}: trained on another base than {config.base}: its {', '.join(differing)} differ; "
            "give the base it was trained on"
        )


def _stated(flag: str, given: Any, trained: Any) -> Any:
    """Return a setting that training fixed, or the given one where it fixed none; a contradiction is refused."""
    if given is not None and trained is not None and given != trained:
        raise MismatchError(f"{flag} {given}: the model was trained with {trained!r}; leave {flag} out")
    return trained if trained is not None else given


def _digest(config: Config) -> str:
    assert config.lora is not None
    files = sorted(config.lora.glob("*.safetensors")) if config.lora.is_dir() else [config.lora]
    return ",".join(sha256_file(file) for file in files)


def _device(asked: str) -> str:
    if asked != "auto":
        kind = asked.partition(":")[0]
        there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not there.get(kind, False):
            known = ", ".join(name for name, present in there.items() if present)
            raise InputError(f"--device {asked}: not on this machine; it has {known}")
        return asked
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
