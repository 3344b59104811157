"""The models of a base with its LoRAs, written into a folder as ONNX and checked on the way."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.export.checks import graph_error, picture_error
from sdxl_mel.export.conditions import split_conditions
from sdxl_mel.export.description import Chosen, asked_drawing, describe, lora_name
from sdxl_mel.export.external import large_tensors, move_out
from sdxl_mel.export.factors import Factors, set_apart
from sdxl_mel.export.folder import HashedFolder
from sdxl_mel.export.graphs import Part, decoder_part, text_part, to_onnx, unet_part
from sdxl_mel.export.manifest import Description, Drawn, Factor, Files, Lora, Manifest, Model, Steps
from sdxl_mel.export.opening import open_chosen, require_step_adapter
from sdxl_mel.export.options import Weights
from sdxl_mel.export.precision import worth_halves
from sdxl_mel.export.runner import (
    LORA_FILE,
    WEIGHTS_FILE,
    ConditionedUnet,
    Exported,
    Models,
    Session,
    read_tokenizer,
)
from sdxl_mel.export.vectors import TEXTS, vectors
from sdxl_mel.export.weights import store
from sdxl_mel.files.tokenizer import tokenizer_files
from sdxl_mel.models.small_decoder import small_decoder_for
from sdxl_mel.progress import progress
from sdxl_mel.synthesis.generator import Generator

if TYPE_CHECKING:
    from onnx import ModelProto

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
        """Return the bytes that are loaded, by the names of files without hash and kind."""
        sizes: Counter[str] = Counter()
        for file in self.manifest.all_files():
            sizes[Path(file.path).name.partition(".")[0]] += file.loaded
        return dict(sizes)


@dataclass(frozen=True)
class _Graph:
    """A model with exact weights, its error against torch, and the file of its factors."""

    part: Part
    model: "ModelProto"
    session: Session
    error: float
    factors: bytes
    places: tuple[Factor, ...]


@dataclass(frozen=True)
class _Stored:
    """A model with stored weights, in its graph or apart, and the graph of its conditions where that is another."""

    session: Session | ConditionedUnet
    content: bytes
    weights: bytes | None = None
    conditions: bytes | None = None


def export_models(chosen: Chosen, out: HashedFolder, *, page: bool) -> Written:
    """Write the models of a base, its tokenizers and test vectors; return what was written.

    For a `page` models are packed, UNets have their weights beside them, which takes a browser less memory, and what
    they are told is a graph of its own, computed once a prompt; else each model is one file.

    Raises InputError for what cannot be exported, MismatchError where an export draws something else than the base,
    MissingError without onnx.
    """
    if chosen.step_lora is not None:
        require_step_adapter(chosen.step_lora)
    generator, factors = open_chosen(chosen)
    base, description = generator.models.base, describe(chosen, generator)
    parts = _parts(generator, factors)
    with progress(len(parts) + (chosen.step_lora is not None), "export", "models") as ticker:
        graphs: dict[str, _Graph] = {}
        for part in parts:
            graphs[part.name] = _graph(part)
            ticker.advance()
        asked: dict[str, Drawn] = {"unet": description.drawing}
        if chosen.step_lora is not None:
            graphs["steps"], asked["steps"] = _steps(chosen, chosen.step_lora)
            ticker.advance()
    tokenizers = {name: tokenizer_json(base.tokenizers[name]) for name in TOKENIZERS}
    exact = {unet: _drawer(graphs, unet, description, tokenizers) for unet in asked}
    halves: dict[str, set[str]] = {}
    if chosen.weights == "int8":
        halves = {unet: worth_halves(graphs[unet].part, graphs[unet].model, exact[unet], asked[unet]) for unet in asked}
    stored = {
        name: _store(graph, chosen.weights, halves.get(name, ()), apart=page and name in asked)
        for name, graph in graphs.items()
    }
    drawers = {unet: _drawer(stored, unet, description, tokenizers) for unet in asked}
    checked = asked | {"unet": CHECKED}
    difference = max(_difference(drawers[unet], exact[unet], checked[unet], chosen.weights) for unet in asked)
    models = {name: _write(out, name, each, packed=page) for name, each in stored.items()}
    tokens = {name: out.write_parts(f"tokens/{name}.json", content) for name, content in tokenizers.items()}
    tables = json.dumps(vectors(drawers["unet"]), separators=(",", ":")).encode()
    steps = lora = None
    if chosen.step_lora is not None:
        steps = Steps(unet=models.pop("steps"), lora=lora_name(chosen.step_lora), drawing=asked["steps"])
    if factors is not None:
        file = out.write_parts(f"models/{LORA_FILE}", graphs["unet"].factors, packed=page)
        lora = Lora(file=file, rank=factors.rank, factors=graphs["unet"].places)
    manifest = Manifest(
        **dict(description),
        files=Files(**models, **tokens, steps=steps),
        vectors=out.write_parts("vectors.json", tables),
        lora=lora,
    )
    return Written(manifest, {name: each.error for name, each in graphs.items()}, difference)


def _parts(generator: Generator, factors: Factors | None) -> list[Part]:
    """Return the models that every export has, and the small decoder of a base that carries one."""
    base, spec = generator.models.base, generator.spec
    parts = [text_part(base, generator.trained.clip_skip), unet_part(base.unet, spec, factors)]
    parts.append(decoder_part("decoder", base.vae, spec))
    small = small_decoder_for(base)
    return parts if small is None else [*parts, decoder_part("small_decoder", small, spec)]


def _drawer(
    models: Mapping[str, _Graph | _Stored], unet: str, description: Description, tokenizers: Mapping[str, bytes]
) -> Exported:
    """Return what draws with the UNet of this name."""
    first, second = (read_tokenizer(tokenizers[name]) for name in TOKENIZERS)
    sessions = Models(*(models[name].session for name in ("text", unet, "decoder")))
    return Exported(description, sessions, (first, second))


def _difference(stored: Exported, exact: Exported, drawing: Drawn, weights: Weights) -> float:
    found, wanted = (each.values(TEXTS[1], 0, drawing) for each in (stored, exact))
    return picture_error(found, wanted, weights)


def _graph(part: Part) -> _Graph:
    model = to_onnx(part)
    factors, places = set_apart(model, part.kept)
    session = Session(model.SerializeToString(), _beside(part, factors))
    return _Graph(part, model, session, graph_error(part, session), factors, places)


def _store(graph: _Graph, weights: Weights, halves: Collection[str], *, apart: bool) -> _Stored:
    """Store a model's weights; `apart` as a page wants a UNet: in two graphs, its weights in a file of their own."""
    model, factors = graph.model, _beside(graph.part, graph.factors)
    store(model, weights, graph.part.kept, halves)
    if not apart:
        content = model.SerializeToString()
        return _Stored(Session(content, factors), content)
    conditions = split_conditions(model).SerializeToString()
    moved = move_out(model, large_tensors(model), WEIGHTS_FILE).content
    content = model.SerializeToString()
    unet = Session(content, factors | {WEIGHTS_FILE: moved})
    return _Stored(ConditionedUnet(Session(conditions, factors), unet), content, moved, conditions)


def _write(out: HashedFolder, name: str, model: _Stored, *, packed: bool) -> Model:
    graph = out.write_parts(f"models/{name}.onnx", model.content, packed=packed)
    apart = {"weights": model.weights, "conditions": model.conditions}
    files = {
        key: out.write_parts(f"models/{name}.{key}", content, packed=packed)
        for key, content in apart.items()
        if content is not None
    }
    return Model(**dict(graph), **files)


def _beside(part: Part, factors: bytes) -> dict[str, bytes]:
    return {LORA_FILE: factors} if part.kept else {}


def _steps(chosen: Chosen, step_lora: str) -> tuple[_Graph, Drawn]:
    """Return the UNet with a step adapter in its weights, and how that asks to be drawn."""
    generator, factors = open_chosen(chosen, step_lora)
    part = unet_part(generator.models.base.unet, generator.spec, factors)
    return _graph(part), asked_drawing(generator, Drawing())


def tokenizer_json(tokenizer: object) -> bytes:
    """Return the tokenizer.json of a tokenizer, as short as JSON is."""
    return json.dumps(tokenizer_files(tokenizer)["tokenizer.json"], ensure_ascii=False, separators=(",", ":")).encode()
