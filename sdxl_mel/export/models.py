"""The models of a base with its LoRAs, written into a folder as ONNX and checked on the way."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from sdxl_mel.errors import InputError, MissingError
from sdxl_mel.export.checks import graph_error, picture_error
from sdxl_mel.export.description import Chosen, describe
from sdxl_mel.export.factors import Factors, put_factors, set_apart
from sdxl_mel.export.folder import HashedFolder
from sdxl_mel.export.graphs import Part, decoder_part, text_part, to_onnx, unet_part
from sdxl_mel.export.manifest import Drawn, Factor, Files, Lora, Manifest
from sdxl_mel.export.options import LARGEST_MODEL
from sdxl_mel.export.runner import LORA_FILE, Exported, Models, Session, read_tokenizer
from sdxl_mel.export.vectors import TEXTS, vectors
from sdxl_mel.export.weights import store
from sdxl_mel.files.tokenizer import tokenizer_files
from sdxl_mel.models.base import find_source, open_base
from sdxl_mel.models.family import PARTS
from sdxl_mel.models.lora.file import read_loras
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.progress import log, progress
from sdxl_mel.sound.melspec import named_spec
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.stack import ALWAYS, chosen_layers, parse_acting, without_unet
from sdxl_mel.synthesis.trained import Stated

CHECKED = Drawn(sampler="euler", steps=3, guidance=2.5)
"""The drawing in which stored weights are compared with exact ones."""
TOKENIZERS = ("tokenizer", "tokenizer_2")


@dataclass(frozen=True)
class Written:
    """What was exported: the manifest, errors of graphs against torch, and of a picture against float32 weights."""

    manifest: Manifest
    graph_errors: Mapping[str, float]
    picture_error: float

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every file by its name without hash."""
        return {Path(file.path).name.partition(".")[0]: file.bytes for file in self.manifest.all_files()}


def export_models(chosen: Chosen, out: HashedFolder) -> Written:
    """Write the models of a base, its tokenizers and test vectors into a folder; the manifest of them is returned.

    Raises InputError for what cannot be exported, MismatchError where an export draws something else than the base,
    MissingError without onnx.
    """
    require_libraries()
    generator, factors = _opened(chosen)
    base, spec = generator.models.base, generator.spec
    description = describe(chosen, generator)
    parts = [text_part(base, generator.trained.clip_skip), unet_part(base.unet, spec), decoder_part(base.vae, spec)]
    made: dict[str, _Made] = {}
    with progress(len(parts), "export", "models") as ticker:
        for part in parts:
            made[part.name] = _make(part, chosen, factors if part.name == "unet" else None)
            ticker.advance()
    tokenizers = {name: tokenizer_json(base.tokenizers[name]) for name in TOKENIZERS}
    readers = (read_tokenizer(tokenizers["tokenizer"]), read_tokenizer(tokenizers["tokenizer_2"]))
    exact = Exported(description, Models(**{name: each.exact for name, each in made.items()}), readers)
    stored = Exported(description, Models(**{name: each.stored for name, each in made.items()}), readers)
    pictures = (each.values(TEXTS[1], 0, CHECKED) for each in (stored, exact))
    difference = picture_error(*pictures, chosen.weights)
    files = {name: out.write_parts(f"models/{name}.onnx", each.content) for name, each in made.items()}
    files |= {name: out.write_parts(f"tokens/{name}.json", content) for name, content in tokenizers.items()}
    lora = None
    if factors is not None:
        file = out.write_parts(f"models/{LORA_FILE}", made["unet"].factors)
        lora = Lora(file=file, rank=factors.rank, factors=made["unet"].listed)
    tables = out.write_parts("vectors.json", json.dumps(vectors(stored), separators=(",", ":")).encode())
    manifest = Manifest(**dict(description), files=Files(**files), vectors=tables, lora=lora)
    return Written(manifest, {name: each.error for name, each in made.items()}, difference)


def require_libraries() -> None:
    """Raise MissingError that says how to install what an export needs."""
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise MissingError(
            f"sdxl-mel export needs onnx, onnxruntime and onnxscript ({error.name} is not installed); "
            "pip install 'sdxl-mel[export]'"
        ) from error
    del onnx, onnxruntime, onnxscript


def _opened(chosen: Chosen) -> tuple[Generator, Factors | None]:
    """Return a base with its LoRAs in its weights, or with those of its UNet beside them as factors."""
    source = find_source(chosen.base, PARTS)
    if source.family is not SDXL:
        raise InputError(
            f"--base {chosen.base}: is {source.family.title}; exported are SDXL and its students, such as mini"
        )
    checkpoint = source.checkpoint(("unet",))
    size = 4 * sum(prod(checkpoint.type_of(param).shape) for param in checkpoint.places)
    if size > LARGEST_MODEL:
        raise InputError(
            f"--base {chosen.base}: its UNet of {size // 4e6:.0f} M parameters is too large for a browser, which reads "
            f"up to {LARGEST_MODEL // 4e6:.0f} M; train a student of it"
        )
    parsed = [parse_acting(lora) for lora in chosen.loras]
    for text, (_, acting) in zip(chosen.loras, parsed):
        if acting.interval != ALWAYS:
            raise InputError(f"--lora {text}: an exported LoRA acts at all noise levels; leave the interval out")
    loras = read_loras([file for file, _ in parsed])
    loras = [chosen_layers(lora, acting.layers) for lora, (_, acting) in zip(loras, parsed)]
    base = open_base(chosen.base)
    fused = loras if chosen.lora_mode == "fused" else [without_unet(lora) for lora in loras]
    stated = Stated(named_spec(chosen.preset) if chosen.preset else None, chosen.anchor, chosen.clip_skip)
    generator = Generator(base, stated=stated, loras=fused, keep_base=False)
    return generator, put_factors(base, loras, chosen.lora_rank) if chosen.lora_mode == "factors" else None


@dataclass(frozen=True)
class _Made:
    """A model with exact and with stored weights, its error against torch, and the file of its factors."""

    exact: Session
    stored: Session
    content: bytes
    error: float
    factors: bytes = b""
    listed: tuple[Factor, ...] = field(default=())


def _make(part: Part, chosen: Chosen, factors: Factors | None) -> _Made:
    model = to_onnx(part)
    beside, listed = set_apart(model, factors) if factors else (b"", ())
    files = {LORA_FILE: beside} if factors else None
    exact = Session(model.SerializeToString(), files)
    error = graph_error(part, exact)
    store(model, chosen.weights, factors.names() if factors else ())
    content = model.SerializeToString()
    log(f"{part.name}: {len(content) / 1e6:.1f} MB, off by {error:.1e} of its largest output against torch")
    return _Made(exact, Session(content, files), content, error, beside, listed)


def tokenizer_json(tokenizer: object) -> bytes:
    """Return the tokenizer.json of a tokenizer, as short as JSON is."""
    return json.dumps(tokenizer_files(tokenizer)["tokenizer.json"], ensure_ascii=False, separators=(",", ":")).encode()
