"""What an exported folder holds: `manifest.json`, which the page and the reference runner read and nothing else."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sdxl_mel.diffusion.options import Prediction
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.export.options import Weights
from sdxl_mel.sound.melspec import MelSpec

MANIFEST = "manifest.json"


class Stored(BaseModel):
    """A value of the manifest."""

    model_config = ConfigDict(frozen=True)


class File(Stored):
    """A file of the folder: where it would lie whole, the parts in which it lies, and what is in it.

    `packed` is the size of the parts together where each is a gzip file of its own, None where they are what they hold.
    """

    path: str
    parts: tuple[str, ...]
    bytes: int
    sha256: str
    packed: int | None = None

    @property
    def loaded(self) -> int:
        """Return how many bytes are loaded for it."""
        return self.bytes if self.packed is None else self.packed


class Model(File):
    """A graph, the file of its weights where they lie apart, and the graph of its conditions where it is in two."""

    weights: File | None = None
    conditions: File | None = None

    def all_files(self) -> Iterator[File]:
        """Yield the graph, and what lies apart from it."""
        yield self
        yield from (file for file in (self.weights, self.conditions) if file)


class Latent(Stored):
    """The shape of a tile's latents; `scale` is how many pixels one latent is wide."""

    channels: int
    scale: int
    height: int
    columns: int


class Text(Stored):
    """What the text encoders read and give; `padding` is what fills up the tokens of each."""

    hidden: int
    pooled: int
    tokens: int
    clip_skip: int
    padding: tuple[str, str]


class Scheduler(Stored):
    """The noise schedule of a base; `final_alpha_cumprod` is that after DDIM's last step."""

    prediction: Prediction
    alphas_cumprod: tuple[float, ...]
    final_alpha_cumprod: float
    spacing: str
    steps_offset: int


class Drawn(Stored):
    """How the models ask to be drawn; timesteps are a spacing or each of them, None = the base's spacing."""

    sampler: str
    steps: int
    guidance: float
    timesteps: str | tuple[int, ...] | None = None


class Preview(Stored):
    """The linear map from a latent to a pixel, and the spread of finished latents; see `models.latent_map`."""

    weights: tuple[tuple[float, ...], ...]
    spread: float


class Factor(Stored):
    """Where the two matrices of a LoRA on one layer lie: (offset in bytes, shape) each, float32."""

    name: str
    up: tuple[int, tuple[int, ...]]
    down: tuple[int, tuple[int, ...]]


class Lora(Stored):
    """The LoRA beside the UNet's weights: a file of factors, each filled up with zeros to `rank`."""

    file: File
    rank: int
    factors: tuple[Factor, ...]


class Command(Stored):
    """The base, the VAE in place of its own and the LoRAs, by the names that a command line gives them."""

    base: str
    vae: str | None = None
    loras: tuple[str, ...] = ()


class Steps(Stored):
    """The UNet for few steps, the name of the step adapter in it, and how it asks to be drawn."""

    unet: Model
    lora: str
    drawing: Drawn


class Files(Stored):
    """The models, the tokenizers, and what runs them in a browser."""

    text: Model
    unet: Model
    decoder: Model
    tokenizer: File
    tokenizer_2: File
    small_decoder: Model | None = None
    steps: Steps | None = None
    runtime: dict[str, File] | None = None
    webgpu: dict[str, File] | None = None


class Description(Stored):
    """What the models are, and how they are drawn."""

    format: Literal[1] = 1
    title: str
    made_with: str
    spec: MelSpec
    anchor: str
    command: Command
    family: str
    latent: Latent
    text: Text
    scheduler: Scheduler
    drawing: Drawn
    samplers: tuple[str, ...]
    weights: Weights
    preview: Preview
    example: str = ""


class Manifest(Description):
    """What the models are, and the files that hold them."""

    files: Files
    vectors: File
    lora: Lora | None = None

    def all_files(self) -> Iterator[File]:
        """Yield every file."""
        files = self.files
        models = (files.text, files.unet, files.decoder, files.small_decoder, files.steps.unet if files.steps else None)
        for model in models:
            yield from model.all_files() if model else ()
        yield from (files.tokenizer, files.tokenizer_2, *(files.runtime or {}).values(), *(files.webgpu or {}).values())
        yield from [self.lora.file] if self.lora else []
        yield self.vectors

    def to_json(self) -> str:
        """Return the manifest as JSON; what is not there has no name in it."""
        content = self.model_dump(mode="json")
        nested = {name: _present(content[name]) for name in ("command", "files")}
        return json.dumps(_present(content) | nested, ensure_ascii=False, indent=1)


def _present(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder. Raises InputError where there is none, FormatError for a damaged one."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: no exported models ({MANIFEST} is missing); make them with sdxl-mel export")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise FormatError(f"{path}: not a manifest of this toolkit: {place}: {first['msg']}; export again") from error
