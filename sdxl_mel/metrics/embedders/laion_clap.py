"""LAION's own package as an embedder, where it is installed: to cross-check the scores made through transformers.

It imports torchvision for pictures, which are not used here; torchvision would have to match torch to the build, so
empty classes stand for what it names while it is opened. It also parses the command line as its own.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from sdxl_mel.arrays import Float, Vectors
from sdxl_mel.errors import FormatError, InputError, MissingError, first_line
from sdxl_mel.metrics.embedders.base import TextAudioEmbedder, WindowRule, cosine_scores
from sdxl_mel.metrics.embedders.laion_checkpoint import read_checkpoint
from sdxl_mel.record import sha256_file

SAMPLE_RATE = 48000
RULE = WindowRule(length=480000, shortest=48000)
TINY = "630k"
"""LAION's 630k checkpoints are HTSAT-tiny; the music ones are HTSAT-base."""
TORCHVISION = {
    "torchvision": "",
    "torchvision.datasets": "",
    "torchvision.ops": "",
    "torchvision.ops.misc": "FrozenBatchNorm2d",
    "torchvision.transforms": "CenterCrop Compose InterpolationMode Normalize RandomResizedCrop Resize ToTensor",
}
"""What laion_clap 1.1.5 names of torchvision when it is imported."""


class LaionClapEmbedder(TextAudioEmbedder):
    """laion_clap.CLAP_Module with a checkpoint of LAION's, cut into the same exact windows as `clap`."""

    name = "laion-clap"
    prefix = "laion_clap"
    rate = SAMPLE_RATE
    windows = f"10 s; {RULE}"

    def __init__(self, checkpoint: Path) -> None:
        if importlib.util.find_spec("laion_clap") is None:
            raise MissingError("the laion_clap package is not installed; pip install 'sdxl-mel[laion-clap]'")
        if not checkpoint.is_file():
            raise InputError(f"{checkpoint}: no such checkpoint; --laion-clap takes one of LAION's .pt files")
        if "fusion" in checkpoint.stem:
            raise InputError(
                f"{checkpoint}: a fusion checkpoint, for which laion_clap asks for torchaudio; convert it "
                "(`sdxl-mel convert-clap`) and give --clap FOLDER"
            )
        amodel = "HTSAT-tiny" if checkpoint.stem.startswith(TINY) else "HTSAT-base"
        self._module = _opened(amodel)
        # Its own load_ckpt would open the pickle unguarded.
        tensors = read_checkpoint(checkpoint)
        missing = self._module.model.load_state_dict(tensors, strict=False).missing_keys
        if [key for key in missing if "position_ids" not in key]:
            raise FormatError(f"{checkpoint}: does not fit {amodel}: {missing[0]} is missing")
        self.weights = sha256_file(checkpoint)
        self.family = checkpoint.stem.split("_epoch", 1)[0]

    def embed_audio(self, samples: Float) -> Float:
        """Return vectors (windows, 512) of mono samples at 48 kHz; the package normalises each."""
        # Its own way from samples to features asks for torchaudio and cuts at random; a window needs neither.
        windows = [{"waveform": torch.from_numpy(window)} for window in RULE.cut(samples)]
        with torch.inference_mode():
            return np.asarray(self._module.model.get_audio_embedding(windows).cpu())

    def embed_text(self, texts: list[str]) -> Float:
        """Return vectors (texts, 512); the package drops a batch of one, so that is sent twice."""
        several = texts if len(texts) > 1 else texts * 2
        return np.asarray(self._module.get_text_embedding(several))[: len(texts)]

    def scores(self, clips: list[Float], texts: list[str]) -> Vectors:
        """Return the cosines (clips, texts) of embedded clips and texts."""
        return cosine_scores(clips, self.embed_text(texts))


def _opened(amodel: str) -> Any:
    """Return LAION's module with random weights. Raises MissingError where the hub cannot be reached."""
    try:
        with _apart():
            import laion_clap

            return laion_clap.CLAP_Module(amodel=amodel).eval()
    except OSError as error:
        raise MissingError(
            f"laion_clap takes roberta-base and two other tokenizers from the hub ({first_line(error)}); without a "
            "network convert the checkpoint (`sdxl-mel convert-clap`) and give --clap FOLDER"
        ) from error


@contextmanager
def _apart() -> Iterator[None]:
    """Keep the package to itself while the block runs: without torchvision, our command line, or a longer path."""
    path, words, stands = list(sys.path), list(sys.argv), {}
    if importlib.util.find_spec("torchvision") is None:
        stands = {name: ModuleType(name) for name in TORCHVISION}
        for name, module in stands.items():
            vars(module).update({each: type(each, (), {}) for each in TORCHVISION[name].split()})
            above, _, last = name.rpartition(".")
            if above:
                setattr(stands[above], last, module)
    sys.modules.update(stands)
    sys.argv[1:] = []
    try:
        yield
    finally:
        sys.path[:], sys.argv[:] = path, words
        for name in stands:
            del sys.modules[name]
