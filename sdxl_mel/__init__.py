"""Fine-tune Stable Diffusion XL on mel spectrograms and make music with it.

The names below are the public ones: they change only with a new version, as CHANGELOG.md says. A name is imported from
where it lives when it is first used, so `import sdxl_mel` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdxl_mel.codec import encode, fidelity_ladder, invert
    from sdxl_mel.dataset.cache import build as build_cache
    from sdxl_mel.dataset.prepare import prepare
    from sdxl_mel.dataset.settings import CacheSettings, DemoSource, FileSource
    from sdxl_mel.errors import SdxlMelError
    from sdxl_mel.evaluation.run import evaluate
    from sdxl_mel.files.audio import read_audio, write_audio
    from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
    from sdxl_mel.models.base import open_base
    from sdxl_mel.models.fuse import fuse
    from sdxl_mel.models.lora.file import read_lora, write_lora
    from sdxl_mel.sound.melspec import MelSpec, named_spec
    from sdxl_mel.sound.stitching import stitch
    from sdxl_mel.synthesis.edited_sound import edit_recording
    from sdxl_mel.synthesis.editing import Edit
    from sdxl_mel.synthesis.generator import Generator
    from sdxl_mel.synthesis.regions import Region
    from sdxl_mel.training.lora_run import train_lora as train
    from sdxl_mel.training.lora_settings import Config as TrainSettings

__version__ = "0.1.0"

_HOMES = {
    "CacheSettings": "dataset.settings",
    "DemoSource": "dataset.settings",
    "Edit": "synthesis.editing",
    "FileSource": "dataset.settings",
    "Generator": "synthesis.generator",
    "MelSpec": "sound.melspec",
    "Region": "synthesis.regions",
    "SdxlMelError": "errors",
    "Spectrogram": "files.spectrogram",
    "TrainSettings": "training.lora_settings:Config",
    "build_cache": "dataset.cache:build",
    "edit_recording": "synthesis.edited_sound",
    "encode": "codec",
    "evaluate": "evaluation.run",
    "fidelity_ladder": "codec",
    "fuse": "models.fuse",
    "invert": "codec",
    "named_spec": "sound.melspec",
    "open_base": "models.base",
    "prepare": "dataset.prepare",
    "read_audio": "files.audio",
    "read_lora": "models.lora.file",
    "read_spectrogram": "files.spectrogram",
    "stitch": "sound.stitching",
    "train": "training.lora_run:train_lora",
    "write_audio": "files.audio",
    "write_lora": "models.lora.file",
    "write_spectrogram": "files.spectrogram",
}
"""Where each public name lives: a module, and after a colon the name there where it is another."""

__all__ = [
    "CacheSettings",
    "DemoSource",
    "Edit",
    "FileSource",
    "Generator",
    "MelSpec",
    "Region",
    "SdxlMelError",
    "Spectrogram",
    "TrainSettings",
    "build_cache",
    "edit_recording",
    "encode",
    "evaluate",
    "fidelity_ladder",
    "fuse",
    "invert",
    "named_spec",
    "open_base",
    "prepare",
    "read_audio",
    "read_lora",
    "read_spectrogram",
    "stitch",
    "train",
    "write_audio",
    "write_lora",
    "write_spectrogram",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = _HOMES[name].partition(":")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), there or name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
