"""The choices that several commands offer, stated once and without a heavy library, so that help is quick."""

from typing import Literal

Preset = Literal["std", "long", "hifi", "native", "cheap", "web", "mini"]
"""Our own picture formats."""
Format = Literal[Preset, "minimidi", "riffusion", "teticio", "auffusion"]
"""Every picture format that is known by name, those of other tools included."""
OwnMethod = Literal["best", "fast"]
"""Our inversions of a picture; they differ in the number of iterations."""
Method = Literal[OwnMethod, "griffinlim"]
"""Every inversion of a picture; `griffinlim` is librosa's."""
Container = Literal["wav", "flac", "ogg", "opus", "mp3"]
"""The kinds of sound file that are written."""
Bits = Literal["16", "24", "float"]
"""Precision of the samples of a WAV or FLAC."""
Precision = Literal["fp32", "fp16", "bf16"]
"""Precision of the numbers of a network."""
Dialect = Literal["kohya", "diffusers"]
"""The names of the tensors of a LoRA file: ComfyUI, A1111 and Civitai read kohya's."""
