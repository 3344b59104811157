"""The models of a base with its LoRAs, written into a folder as ONNX and checked on the way."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.export.checks import graph_error, picture_error
from sdxl_mel.export.description import Chosen, asked_drawing, describe, lora_name
from sdxl_mel.export.factors import Factors, set_apart
from sdxl_mel.export.folder import HashedFolder
from sdxl_mel.export.graphs import Part, decoder_part, text_part, to_onnx, unet_part
from sdxl_mel.export.manifest import Description, Drawn, Factor, Files, Lora, Manifest, Steps
from sdxl_mel.export.opening import open_chosen, require_step_adapter
from sdxl_mel.export.options import Weights
from sdxl_mel.export.runner import LORA_FILE, Exported, Models, Session, read_tokenizer
from sdxl_mel.export.vectors import TEXTS, vectors
from sdxl_mel.export.weights import store
from sdxl_mel.files.tokenizer import tokenizer_files
from sdxl_mel.models.small_decoder import small_decoder_for
from sdxl_mel.progress import progress
from sdxl_mel.synthesis.generator import Generator

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
        """Return the bytes that are loaded for every file, by its name without hash."""
        return {Path(file.path).name.partition(".")[0]: file.loaded for file in self.manifest.all_files()}


@dataclass(frozen=True)
class _Made:
    """A model with exact and with stored weights, its error against torch, and the file of its factors."""

    exact: Session
    stored: Session
    content: bytes
    error: float
    factors: bytes
    places: tuple[Factor, ...]


def export_models(chosen: Chosen, out: HashedFolder, *, packed: bool) -> Written:
    """Write the models of a base, `packed` as gzip or not, its tokenizers and test vectors; return what was written.

    Raises InputError for what cannot be exported, MismatchError where an export draws something else than the base,
    MissingError without onnx.
    """
    if chosen.step_lora is not None:
        require_step_adapter(chosen.step_lora)
    generator, factors = open_chosen(chosen)
    base, description = generator.models.base, describe(chosen, generator)
    parts = _parts(generator, factors)
    with progress(len(parts) + (chosen.step_lora is not None), "export", "models") as ticker:
        made: dict[str, _Made] = {}
        for part in parts:
            made[part.name] = _make(part, chosen.weights)
            ticker.advance()
        drawings: dict[str, Drawn] = {"unet": CHECKED}
        if chosen.step_lora is not None:
            made["steps"], drawings["steps"] = _make_steps(chosen, chosen.step_lora)
            ticker.advance()
    tokenizers = {name: tokenizer_json(base.tokenizers[name]) for name in TOKENIZERS}
    drawers = {unet: _drawers(made, unet, description, tokenizers) for unet in drawings}
    difference = max(_difference(*drawers[unet], drawing, chosen.weights) for unet, drawing in drawings.items())
    files = {name: out.write_parts(f"models/{name}.onnx", each.content, packed=packed) for name, each in made.items()}
    files |= {name: out.write_parts(f"tokens/{name}.json", content) for name, content in tokenizers.items()}
    if factors is not None:
        files["lora"] = out.write_parts(f"models/{LORA_FILE}", made["unet"].factors, packed=packed)
    tables = json.dumps(vectors(drawers["unet"][0]), separators=(",", ":")).encode()
    steps = None
    if chosen.step_lora is not None:
        name = lora_name(chosen.step_lora)
        steps = Steps(unet=files.pop("steps"), lora=name, drawing=drawings["steps"])
    manifest = Manifest(
        **dict(description),
        files=Files(**{name: file for name, file in files.items() if name != "lora"}, steps=steps),
        vectors=out.write_parts("vectors.json", tables),
        lora=Lora(file=files["lora"], rank=factors.rank, factors=made["unet"].places) if factors else None,
    )
    return Written(manifest, {name: each.error for name, each in made.items()}, difference)


def _parts(generator: Generator, factors: Factors | None) -> list[Part]:
    """Return the models that every export has, and the small decoder of a base that carries one."""
    base, spec = generator.models.base, generator.spec
    parts = [text_part(base, generator.trained.clip_skip), unet_part(base.unet, spec, factors)]
    parts.append(decoder_part("decoder", base.vae, spec))
    small = small_decoder_for(base)
    return parts if small is None else [*parts, decoder_part("small_decoder", small, spec)]


def _drawers(
    made: Mapping[str, _Made], unet: str, description: Description, tokenizers: Mapping[str, bytes]
) -> tuple[Exported, Exported]:
    """Return what draws with stored weights, and what draws with exact ones."""
    first, second = (read_tokenizer(tokenizers[name]) for name in TOKENIZERS)
    used = [made[name] for name in ("text", unet, "decoder")]
    stored, exact = Models(*(each.stored for each in used)), Models(*(each.exact for each in used))
    return Exported(description, stored, (first, second)), Exported(description, exact, (first, second))


def _difference(stored: Exported, exact: Exported, drawing: Drawn, weights: Weights) -> float:
    found, wanted = (each.values(TEXTS[1], 0, drawing) for each in (stored, exact))
    return picture_error(found, wanted, weights)


def _make(part: Part, weights: Weights) -> _Made:
    model = to_onnx(part)
    factors, places = set_apart(model, part.kept)
    files = {LORA_FILE: factors} if part.kept else None
    exact = Session(model.SerializeToString(), files)
    error = graph_error(part, exact)
    store(model, weights, part.kept)
    content = model.SerializeToString()
    return _Made(exact, Session(content, files), content, error, factors, places)


def _make_steps(chosen: Chosen, step_lora: str) -> tuple[_Made, Drawn]:
    """Return the UNet with a step adapter in its weights, and how that asks to be drawn."""
    generator, factors = open_chosen(chosen, step_lora)
    part = unet_part(generator.models.base.unet, generator.spec, factors)
    return _make(part, chosen.weights), asked_drawing(generator, Drawing())


def tokenizer_json(tokenizer: object) -> bytes:
    """Return the tokenizer.json of a tokenizer, as short as JSON is."""
    return json.dumps(tokenizer_files(tokenizer)["tokenizer.json"], ensure_ascii=False, separators=(",", ":")).encode()
