"""LAION's own package as an embedder, where it is installed: to cross-check the scores made through transformers."""

import importlib.util
from pathlib import Path

import numpy as np

from sdxl_mel.arrays import Float, Vectors
from sdxl_mel.errors import FormatError, InputError, MissingError
from sdxl_mel.metrics.embedders.base import TextAudioEmbedder, WindowRule, cosine_scores
from sdxl_mel.metrics.embedders.laion_checkpoint import read_checkpoint
from sdxl_mel.record import sha256_file

SAMPLE_RATE = 48000
RULE = WindowRule(length=480000, shortest=48000)
TINY = "630k"
"""LAION's 630k checkpoints are HTSAT-tiny; the music ones are HTSAT-base."""


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
        import laion_clap

        fusion = "fusion" in checkpoint.stem
        amodel = "HTSAT-tiny" if checkpoint.stem.startswith(TINY) else "HTSAT-base"
        self._module = laion_clap.CLAP_Module(enable_fusion=fusion, amodel=amodel)
        # Its own load_ckpt would open the pickle unguarded.
        tensors = read_checkpoint(checkpoint)
        missing = self._module.model.load_state_dict(tensors, strict=False).missing_keys
        if [key for key in missing if "position_ids" not in key]:
            raise FormatError(f"{checkpoint}: does not fit {amodel}: {missing[0]} is missing")
        self.weights = sha256_file(checkpoint)
        self.family = checkpoint.stem.split("_epoch", 1)[0]

    def embed_audio(self, samples: Float) -> Float:
        """Return vectors (windows, 512) of mono samples at 48 kHz; the package normalises each."""
        return np.asarray(self._module.get_audio_embedding_from_data(x=RULE.cut(samples), use_tensor=False))

    def embed_text(self, texts: list[str]) -> Float:
        """Return vectors (texts, 512); the package drops a batch of one, so that is sent twice."""
        several = texts if len(texts) > 1 else texts * 2
        return np.asarray(self._module.get_text_embedding(several))[: len(texts)]

    def scores(self, clips: list[Float], texts: list[str]) -> Vectors:
        """Return the cosines (clips, texts) of embedded clips and texts."""
        return cosine_scores(clips, self.embed_text(texts))
