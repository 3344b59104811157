"""Names that settings offer and engines look up; free of torch, so that a help text need not wait for it."""

from typing import Literal

Preset = Literal["std", "long", "hifi", "native", "cheap", "web", "mini"]
"""Our own picture formats; `sound.melspec.PRESETS` has the numbers of each."""
Format = Literal[Preset, "minimidi", "riffusion", "teticio", "auffusion"]
"""Every named picture format, those of other tools included; `sound.melspec.FORMATS` has the numbers of each."""
Method = Literal["best", "fast", "griffinlim"]
"""Ways to invert a picture; `sound.inversion.methods` has one function for each."""
Container = Literal["wav", "flac", "ogg", "opus", "mp3"]
"""Kinds of sound file that are written; `files.audio.CONTAINERS` says how."""
Bits = Literal["16", "24", "float"]
"""Precision of the samples of a WAV or FLAC; `files.audio` writes them."""
Precision = Literal["fp32", "fp16", "bf16"]
"""Precision of the numbers of a network."""
Dialect = Literal["kohya", "diffusers"]
"""Names of the tensors of a LoRA file; `models.lora.names` has the rules of each."""
DEFAULT_ANCHOR = "mel spectrogram"
"""The words in front of every training caption, where no others are asked for."""
