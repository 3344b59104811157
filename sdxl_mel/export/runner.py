"""The reference runner: draws a tile from an exported folder with onnxruntime, by the manifest alone.

It is what any other runtime has to do, in its fewest lines, and what exports are checked with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.diffusion.conditioning import TIME_IDS, time_ids
from sdxl_mel.diffusion.sampling import draw_noise, make_scheduler, sample
from sdxl_mel.errors import FormatError, MissingError
from sdxl_mel.export.folder import read_file
from sdxl_mel.export.manifest import Description, Drawn, Scheduler, read_manifest
from sdxl_mel.files.tokenizer import END, START
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import quantise

LORA_FILE = "lora.bin"
"""Where a UNet's graph looks for its LoRA's factors."""
WEIGHTS_FILE = "unet.weights"
"""Where a UNet's graph looks for its weights, where they do not lie in it."""
FLOAT_WEIGHTS = "session.disable_quant_qdq"
"""At 1, int8 weights become float32 once; by default they do in every call, and what they multiply is rounded too."""
Arrays = Mapping[str, NDArray[Any]]


class Session:
    """An ONNX model that is called with arrays by name; `beside` are the files of its external data."""

    def __init__(self, content: bytes, beside: Mapping[str, bytes] | None = None) -> None:
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry(FLOAT_WEIGHTS, "1")
        if beside:
            options.add_external_initializers_from_files_in_memory(
                list(beside), list(beside.values()), [len(each) for each in beside.values()]
            )
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Return the outputs in the order of the graph."""
        return self._session.run(None, {name: inputs[name] for name in self._inputs})

    def named(self, inputs: Arrays) -> Arrays:
        """Return the outputs by their names."""
        return dict(zip(self._outputs, self(inputs)))


@dataclass(frozen=True)
class ConditionedUnet:
    """A UNet in two graphs, called as one; a page computes the first one's outputs once a prompt."""

    conditions: Session
    unet: Session

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Return the outputs of the second."""
        return self.unet({**inputs, **self.conditions.named(inputs)})


def onnxruntime() -> Any:
    """Return the library. Raises MissingError that says how to install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingError("onnxruntime is not installed; pip install 'sdxl-mel[export]'") from error
    return onnxruntime


@dataclass(frozen=True)
class Models:
    """The three models of an export, as sessions or as anything that is called like them."""

    text: Any
    unet: Any
    decoder: Any


@dataclass(frozen=True)
class Exported:
    """An exported folder that is open; `open` reads one, the constructor takes models that are in memory."""

    description: Description
    models: Models
    tokenizers: tuple[Tokenizer, Tokenizer]

    @classmethod
    def open(cls, folder: Path, *, small_decoder: bool = False) -> Self:
        """Open a folder; every file is checked. Raises FormatError for one that is missing or damaged."""
        manifest = read_manifest(folder)
        files = manifest.files
        decoder = files.small_decoder if small_decoder and files.small_decoder else files.decoder
        read = lambda file: read_file(folder, file)  # noqa: E731
        factors = {LORA_FILE: read(manifest.lora.file)} if manifest.lora else {}
        weights = {WEIGHTS_FILE: read(files.unet.weights)} if files.unet.weights else {}
        unet: Any = Session(read(files.unet), factors | weights)
        if files.unet.conditions:
            unet = ConditionedUnet(Session(read(files.unet.conditions), factors), unet)
        return cls(
            manifest,
            Models(Session(read(files.text)), unet, Session(read(decoder))),
            (read_tokenizer(read(files.tokenizer)), read_tokenizer(read(files.tokenizer_2))),
        )

    def tokens(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the ids that both text encoders read, (texts, 77) each."""
        text = self.description.text
        first, second = (
            np.array([token_ids(tokenizer, each, padding, text.tokens) for each in texts], np.int64)
            for tokenizer, padding in zip(self.tokenizers, text.padding)
        )
        return first, second

    def values(self, text: str, seed: int, drawing: Drawn | None = None) -> Float:
        """Return the picture values (height, width, channels) of a tile, row 0 at the top, before they are rounded.

        `text` is read as it is, without an anchor; `drawing` None is what the manifest asks for.
        """
        (values,) = self.models.decoder({"latents": self.latents(text, seed, drawing).numpy()})
        return np.moveaxis(values[0], 0, -1)

    def draw(self, text: str, seed: int, drawing: Drawn | None = None) -> Levels:
        """Return the levels (n_mels, frames, channels) of a tile, row 0 the lowest band."""
        values = self.values(text, seed, drawing)
        return quantise(values[::-1] if self.description.spec.low_at == "bottom" else values)

    def latents(self, text: str, seed: int, drawing: Drawn | None = None) -> Tensor:
        """Return the clean latents (1, 4, height, columns) of a tile, as the UNet scales them."""
        described, drawing = self.description, drawing or self.description.drawing
        latent, spec, guidance = described.latent, described.spec, drawing.guidance
        ids, ids_2 = self.tokens(["", text])
        hidden, pooled = self.models.text({"ids": ids, "ids_2": ids_2})
        conditions = {"hidden": hidden, "pooled": pooled, "sizes": sizes_of(spec, 2)}
        guided = guidance not in (0.0, 1.0)
        used = conditions if guided else {name: each[1:] for name, each in conditions.items()}

        def predict(latents: Tensor, timestep: Tensor, _: int) -> Tensor:
            batch = torch.cat([latents, latents]) if guided else latents
            inputs = {"latents": batch.numpy(), "timestep": np.array([float(timestep)], np.float32), **used}
            noise = torch.from_numpy(self.models.unet(inputs)[0])
            return noise[:1] + guidance * (noise[1:] - noise[:1]) if guided else noise

        timesteps: Any = drawing.timesteps
        scheduler = scheduler_of(described.scheduler, drawing.sampler, timesteps)
        noise = draw_noise([seed], (latent.channels, latent.height, latent.columns), "cpu")
        return sample(scheduler, drawing.steps, noise, predict, seeds=[seed], timesteps=timesteps)


def sizes_of(spec: MelSpec, count: int) -> NDArray[np.float32]:
    """Return what the UNet is told of the picture's size, for `count` pictures."""
    return time_ids(spec.n_mels, spec.width).expand(count, TIME_IDS).numpy()


def scheduler_of(stated: Scheduler, sampler: str, timesteps: Any = None) -> Any:
    """Return diffusers' scheduler of a sampler with the noise schedule of a manifest, to the last bit."""
    base = diffusers.EulerDiscreteScheduler(
        prediction_type=stated.prediction, timestep_spacing=stated.spacing, steps_offset=stated.steps_offset
    )
    scheduler = make_scheduler(sampler, base, timesteps)
    scheduler.alphas_cumprod = torch.tensor(stated.alphas_cumprod)
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = torch.tensor(stated.final_alpha_cumprod)
    return scheduler


def read_tokenizer(content: bytes) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json, which neither cuts texts nor fills them up."""
    tokenizer = Tokenizer.from_str(content.decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def token_ids(tokenizer: Tokenizer, text: str, padding: str, length: int) -> list[int]:
    """Return start, the tokens of a text as far as they fit, end, and `padding` up to the length."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids[: length - 2]
    start, end, fill = (_id_of(tokenizer, token) for token in (START, END, padding))
    return [start, *ids, end, *[fill] * (length - 2 - len(ids))]


def _id_of(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise FormatError(f"an exported tokenizer has no token {token}; export it again")
    return found
