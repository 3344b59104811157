"""MelSpec: the numbers that make sound into a spectrogram picture; the mel scale, and the formats known by name.

A spec is chosen once, when sound becomes pictures, and travels inside every artefact made from them. Two artefacts
meet only if their specs are equal.
"""

import warnings
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sdxl_mel.errors import FormatError, InputError, MismatchError
from sdxl_mel.names import near_miss
from sdxl_mel.sound.laws import DecibelLaw, Law, Log1pLaw, LogLaw, PowerLaw, Quantity

SPEC_VERSION = 1
LATENT_FACTOR = 8
"""The VAE makes one latent of 8 x 8 pixels."""
MelScale = Literal["slaney", "htk"]


class MelSpec(BaseModel):
    """How sound was made into a picture; frequencies in Hz, times in samples, levels in LUFS and dBTP.

    `scale` says what an STFT of 1 means: "sine" divides by half the sum of the window, so that a full-scale sine has
    amplitude 1; "raw" does not. `width` is the number of frames of a tile. `channels` "lmr" holds left, mid and right
    in red, green and blue; "grey" holds one signal in all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Literal[1] = 1
    sample_rate: int = Field(gt=0, le=1_000_000)
    n_fft: int = Field(gt=0, le=1 << 18)
    win_length: int = Field(gt=0)
    hop_length: int = Field(gt=0)
    n_mels: int = Field(gt=0, le=1 << 13)
    width: int = Field(gt=0, le=1 << 20)
    fmin: float = Field(20.0, ge=0)
    fmax: float = Field(gt=0)
    mel_scale: MelScale = "slaney"
    mel_norm: Literal["slaney"] | None = None
    quantity: Quantity = "amplitude"
    scale: Literal["sine", "raw"] = "sine"
    law: Law = Log1pLaw()
    low_at: Literal["bottom", "top"] = "bottom"
    channels: Literal["grey", "lmr"] = "lmr"
    centred: bool = True
    preemphasis: float = Field(0.0, ge=0, lt=1)
    loudness_lufs: float | None = Field(-16.0, ge=-100, le=0)
    true_peak_dbtp: float | None = Field(-1.0, ge=-100, le=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [
            (self.win_length > self.n_fft, f"win_length {self.win_length} is longer than n_fft {self.n_fft}"),
            (
                self.hop_length > self.win_length // 2,
                f"hop_length {self.hop_length} leaves less than 50 % overlap",
            ),
            (self.fmax > self.sample_rate / 2, f"fmax {self.fmax} Hz is above sample_rate / 2"),
            (self.fmin >= self.fmax, f"fmin {self.fmin} Hz is not below fmax {self.fmax} Hz"),
            (self.width % LATENT_FACTOR != 0, f"width {self.width} is not divisible by {LATENT_FACTOR}"),
            (self.n_mels % LATENT_FACTOR != 0, f"n_mels {self.n_mels} is not divisible by {LATENT_FACTOR}"),
        ]
        for wrong, message in problems:
            if wrong:
                raise ValueError(message)
        edges = band_edges(self.n_mels, self.fmin, self.fmax, self.mel_scale)
        empty = empty_bands(edges, self.sample_rate, self.n_fft)
        if empty:
            raise ValueError(
                f"{empty} of {self.n_mels} rows have no FFT bin and would stay black; use n_fft {2 * self.n_fft}"
            )
        if self.hop_length > self.win_length // 4:
            warnings.warn(
                f"hop_length {self.hop_length} leaves {1 - self.hop_length / self.win_length:.0%} overlap; "
                "under 75 % the sound loses a dB or more",
                stacklevel=2,
            )
        return self

    @property
    def n_bins(self) -> int:
        """Return the number of FFT bins."""
        return self.n_fft // 2 + 1

    @property
    def tile_samples(self) -> int:
        """Return the number of audio samples of one tile."""
        return self.width * self.hop_length

    @property
    def tile_seconds(self) -> float:
        """Return the duration of one tile."""
        return self.tile_samples / self.sample_rate

    @property
    def size(self) -> tuple[int, int]:
        """Return (width, height) of one tile in pixels."""
        return self.width, self.n_mels

    def to_json(self) -> str:
        """Return the spec as one line of JSON with every field; `from_json` is the inverse."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "spec") -> Self:
        """Read what `to_json` wrote. Raises FormatError for anything else, a newer format included."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            if first["loc"] == ("version",):
                raise FormatError(
                    f"{where}: spec format {first['input']!r}, this toolkit reads {SPEC_VERSION}; update sdxl-mel"
                ) from error
            place = ".".join(map(str, first["loc"])) or "spec"
            raise FormatError(f"{where}: not a valid spec: {place}: {first['msg']}") from error


LINEAR_STEP_HZ = 200.0 / 3.0
LOG_START_HZ = 1000.0
LOG_START_MEL = LOG_START_HZ / LINEAR_STEP_HZ
LOG_STEP = np.log(6.4) / 27.0
"""Slaney's Auditory Toolbox (1998): linear up to 1 kHz, then 27 steps to each factor of 6.4."""


def band_edges(n_mels: int, fmin: float, fmax: float, scale: MelScale) -> NDArray[np.float64]:
    """Return the n_mels + 2 edges in Hz: band i rises from edge i to i + 1 and falls to i + 2."""
    low, high = hz_to_mel(np.array([fmin, fmax]), scale).tolist()
    return mel_to_hz(np.linspace(low, high, n_mels + 2), scale)


def hz_to_mel(hz: NDArray[np.float64], scale: MelScale) -> NDArray[np.float64]:
    """Return frequencies in mel; `mel_to_hz` is the inverse."""
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    above = LOG_START_MEL + np.log(np.maximum(hz, LOG_START_HZ) / LOG_START_HZ) / LOG_STEP
    return np.where(hz < LOG_START_HZ, hz / LINEAR_STEP_HZ, above)


def mel_to_hz(mel: NDArray[np.float64], scale: MelScale) -> NDArray[np.float64]:
    """Return mels in Hz."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    above = LOG_START_HZ * np.exp(LOG_STEP * (np.maximum(mel, LOG_START_MEL) - LOG_START_MEL))
    return np.where(mel < LOG_START_MEL, mel * LINEAR_STEP_HZ, above)


def empty_bands(edges: NDArray[np.float64], sample_rate: int, n_fft: int) -> int:
    """Return how many bands no bin of the FFT falls into."""
    bins_before = np.ceil(edges * n_fft / sample_rate - 1e-9)  # The first bin at or above an edge.
    first_inside = np.floor(edges[:-2] * n_fft / sample_rate + 1e-9) + 1
    return int(np.sum(first_inside >= bins_before[2:]))


_OURS = {"n_fft": 4096, "win_length": 2048, "hop_length": 512, "sample_rate": 32000, "fmax": 16000.0}

PRESETS: dict[str, MelSpec] = {
    "std": MelSpec(**{**_OURS, "n_mels": 512, "width": 1024}),
    "long": MelSpec(**{**_OURS, "n_mels": 512, "width": 1024, "sample_rate": 22050, "fmax": 11025.0}),
    "hifi": MelSpec(**{**_OURS, "n_mels": 1024, "width": 1024, "sample_rate": 44100, "fmax": 22050.0, "n_fft": 8192}),
    "native": MelSpec(**{**_OURS, "n_mels": 704, "width": 1408, "n_fft": 8192}),
    "cheap": MelSpec(**{**_OURS, "n_mels": 512, "width": 512}),
    "web": MelSpec(**{**_OURS, "n_mels": 256, "width": 512, "sample_rate": 22050, "fmax": 11025.0}),
    "mini": MelSpec(
        sample_rate=16000,
        n_fft=2048,
        win_length=1024,
        hop_length=256,
        n_mels=128,
        width=256,
        fmax=8000.0,
        channels="grey",
    ),
}

_THEIRS: dict[str, Any] = {
    "fmin": 0.0,
    "scale": "raw",
    "channels": "grey",
    "loudness_lufs": None,
    "true_peak_dbtp": None,
}
_LIBROSA_POWER: dict[str, Any] = {
    **_THEIRS,
    "n_fft": 2048,
    "win_length": 2048,
    "hop_length": 512,
    "n_mels": 256,
    "mel_norm": "slaney",
    "quantity": "power",
    "law": DecibelLaw(),
    "low_at": "top",
}
"""librosa's power mel spectrogram, 80 dB under each picture's own maximum."""

FOREIGN: dict[str, MelSpec] = {
    # puckowski/sd-spectrograms, util/norm_spec.py.
    "minimidi": MelSpec(sample_rate=16000, width=512, fmax=8000.0, preemphasis=0.97, **_LIBROSA_POWER),
    # riffusion/riffusion-hobby, spectrogram_params.py and image_util.py: (S / max) ** 0.25, dark = loud.
    "riffusion": MelSpec(
        sample_rate=44100,
        n_fft=17640,
        win_length=4410,
        hop_length=441,
        n_mels=512,
        width=512,
        fmax=10000.0,
        mel_scale="htk",
        law=PowerLaw(exponent=0.25, reference=3e7 / 32768, inverted=True),
        **_THEIRS,
    ),
    # teticio/audio-diffusion, mel.py.
    "teticio": MelSpec(sample_rate=22050, width=256, fmax=11025.0, **_LIBROSA_POWER),
    # happylittlecat2333/Auffusion, converter.py: natural log of amplitude between 1e-5 and 200.
    "auffusion": MelSpec(
        sample_rate=16000,
        n_fft=2048,
        win_length=1024,
        hop_length=160,
        n_mels=256,
        width=1024,
        fmax=8000.0,
        mel_norm="slaney",
        law=LogLaw(),
        centred=False,
        **_THEIRS,
    ),
}

FORMATS = PRESETS | FOREIGN


def named_spec(name: str) -> MelSpec:
    """Return a preset or a foreign format by name. Raises InputError that lists the names."""
    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}{near_miss(name, FORMATS)}; known: {', '.join(FORMATS)}")
    return FORMATS[name]


def name_of(spec: MelSpec) -> str | None:
    """Return the name of a spec that is a preset or a foreign format, else None."""
    return next((name for name, known in FORMATS.items() if known == spec), None)


def differences(first: MelSpec, second: MelSpec) -> dict[str, tuple[object, object]]:
    """Return the fields in which two specs differ, with both values."""
    pairs = ((name, getattr(first, name), getattr(second, name)) for name in MelSpec.model_fields)
    return {name: (one, two) for name, one, two in pairs if one != two}


def require_equal(first: MelSpec, second: MelSpec, first_name: str, second_name: str) -> None:
    """Raise MismatchError that lists the differing fields unless both specs are equal."""
    fields = differences(first, second)
    if fields:
        listed = ", ".join(f"{name} {one} against {two}" for name, (one, two) in fields.items())
        raise MismatchError(f"{first_name} and {second_name} were made with different specs: {listed}")
