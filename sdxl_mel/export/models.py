"""The models of a base with its LoRAs, written into a folder as ONNX and checked on the way."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.export.checks import graph_error, picture_error
from sdxl_mel.export.description import Chosen, asked_drawing, describe, lora_name
from sdxl_mel.export.factors import Factors, set_apart
from sdxl_mel.export.folder import HashedFolder
from sdxl_mel.export.graphs import Part, decoder_part, text_part, to_onnx, unet_part
from sdxl_mel.export.manifest import Drawn, Factor, Files, Lora, Manifest, Steps
from sdxl_mel.export.opening import open_chosen, require_step_adapter
from sdxl_mel.export.options import Weights
from sdxl_mel.export.runner import LORA_FILE, Exported, Models, Session, read_tokenizer
from sdxl_mel.export.vectors import TEXTS, vectors
from sdxl_mel.export.weights import store
from sdxl_mel.files.tokenizer import tokenizer_files
from sdxl_mel.models.small_decoder import small_decoder_for
from sdxl_mel.progress import progress

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


@dataclass(frozen=True)
class _Made:
    """A model with exact and with stored weights, its error against torch, and the file of its factors."""

    exact: Session
    stored: Session
    content: bytes
    error: float
    factors: bytes
    listed: tuple[Factor, ...]


def export_models(chosen: Chosen, out: HashedFolder) -> Written:
    """Write the models of a base, its tokenizers and test vectors into a folder; return what was written.

    Raises InputError for what cannot be exported, MismatchError where an export draws something else than the base,
    MissingError without onnx.
    """
    if chosen.step_lora is not None:
        require_step_adapter(chosen.step_lora)
    generator, factors = open_chosen(chosen)
    base, spec = generator.models.base, generator.spec
    description = describe(chosen, generator)
    parts = [text_part(base, generator.trained.clip_skip), unet_part(base.unet, spec), decoder_part(base.vae, spec)]
    small = small_decoder_for(base)
    if small is not None:
        parts.append(decoder_part(small, spec, "small_decoder"))
    with progress(len(parts) + (chosen.step_lora is not None), "export", "models") as ticker:
        made: dict[str, _Made] = {}
        for part in parts:
            made[part.name] = _make(part, chosen.weights, factors if part.name == "unet" else None)
            ticker.advance()
        steps = None
        if chosen.step_lora is not None:
            made["steps"], drawing = _make_steps(chosen, chosen.step_lora)
            unet = out.write_parts("models/steps.onnx", made["steps"].content)
            steps = Steps(unet=unet, lora=lora_name(chosen.step_lora), drawing=drawing)
            ticker.advance()
    tokenizers = {name: tokenizer_json(base.tokenizers[name]) for name in TOKENIZERS}
    readers = (read_tokenizer(tokenizers["tokenizer"]), read_tokenizer(tokenizers["tokenizer_2"]))

    def opened(sessions: Mapping[str, Session], unet: str) -> Exported:
        return Exported(description, Models(sessions["text"], sessions[unet], sessions["decoder"]), readers)

    exact = {name: each.exact for name, each in made.items()}
    stored = {name: each.stored for name, each in made.items()}
    drawings = {"unet": CHECKED} | ({"steps": steps.drawing} if steps else {})
    differences = []
    for unet, drawing in drawings.items():
        found, wanted = (opened(each, unet).values(TEXTS[1], 0, drawing) for each in (stored, exact))
        differences.append(picture_error(found, wanted, chosen.weights))
    files: dict[str, Any] = {
        part.name: out.write_parts(f"models/{part.name}.onnx", made[part.name].content) for part in parts
    }
    files |= {name: out.write_parts(f"tokens/{name}.json", content) for name, content in tokenizers.items()}
    lora = None
    if factors is not None:
        file = out.write_parts(f"models/{LORA_FILE}", made["unet"].factors)
        lora = Lora(file=file, rank=factors.rank, factors=made["unet"].listed)
    tables = json.dumps(vectors(opened(stored, "unet")), separators=(",", ":")).encode()
    manifest = Manifest(
        **dict(description),
        files=Files(**files, steps=steps),
        vectors=out.write_parts("vectors.json", tables),
        lora=lora,
    )
    return Written(manifest, {name: each.error for name, each in made.items()}, max(differences))


def _make(part: Part, weights: Weights, factors: Factors | None) -> _Made:
    model = to_onnx(part, factors.names() if factors else ())
    beside, listed = set_apart(model, factors) if factors else (b"", ())
    files = {LORA_FILE: beside} if factors else None
    exact = Session(model.SerializeToString(), files)
    error = graph_error(part, exact)
    store(model, weights, factors.names() if factors else ())
    content = model.SerializeToString()
    return _Made(exact, Session(content, files), content, error, beside, listed)


def _make_steps(chosen: Chosen, step_lora: str) -> tuple[_Made, Drawn]:
    """Return the UNet with a step adapter in its weights, and how that asks to be drawn."""
    generator, factors = open_chosen(chosen, step_lora)
    part = unet_part(generator.models.base.unet, generator.spec)
    return _make(part, chosen.weights, factors), asked_drawing(generator, Drawing())


def tokenizer_json(tokenizer: object) -> bytes:
    """Return the tokenizer.json of a tokenizer, as short as JSON is."""
    return json.dumps(tokenizer_files(tokenizer)["tokenizer.json"], ensure_ascii=False, separators=(",", ":")).encode()
