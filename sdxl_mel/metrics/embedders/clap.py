"""CLAP through transformers: the text-audio score, and an embedding of sound.

Windows are cut here, exactly: the feature extractor would take a random crop of what is longer than 10 s, and mark a
random clip as "longer" for fusion models. Vectors are as projected; a clip's vector is their mean, normalised.
"""

from pathlib import Path

import numpy as np
import torch
import transformers
from huggingface_hub import snapshot_download

from sdxl_mel.arrays import Float, Vectors
from sdxl_mel.errors import FormatError, InputError, MissingError, first_line
from sdxl_mel.files.header import parse_json
from sdxl_mel.metrics.embedders.base import TextAudioEmbedder, WindowRule, cosine_scores
from sdxl_mel.metrics.embedders.laion_checkpoint import ORIGIN_FILE
from sdxl_mel.record import sha256_file

PICKLES = (".pt", ".pth", ".ckpt", ".bin")
BATCH = 4
MOST_TOKENS = 77
HOW_TO_GET = (
    "get LAION's music_audioset_epoch_15_esc_90.14.pt from huggingface.co/lukewys/laion_clap, run "
    "`sdxl-mel convert-clap FILE.pt --out FOLDER` once, and give --clap FOLDER; or give --clap HUB_ID"
)


class ClapEmbedder(TextAudioEmbedder):
    """CLAP from a transformers folder or hub id; `family` names LAION's checkpoint if it was converted from one."""

    name = prefix = "clap"

    def __init__(self, source: str, device: str = "cpu") -> None:
        transformers.utils.logging.disable_progress_bar()
        folder = _folder(source)
        try:
            self._model = transformers.ClapModel.from_pretrained(folder, use_safetensors=True).eval().to(device)
            self._extractor = transformers.ClapFeatureExtractor.from_pretrained(folder)
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            why = first_line(error)
            raise FormatError(f"{source}: not a CLAP model that transformers can load ({why})") from error
        self._device = device
        self._fusion = bool(self._model.config.audio_config.enable_fusion)
        self.family = _family(folder)
        self.weights = sha256_file(_weights_file(folder))
        self.rate = int(self._extractor.sampling_rate)
        self._rule = WindowRule(length=self._extractor.nb_max_samples, shortest=self.rate)
        self.windows = f"{self._extractor.nb_max_samples / self.rate:g} s; {self._rule}"

    def embed_audio(self, samples: Float) -> Float:
        """Return raw projected vectors (windows, d) of mono samples at 48 kHz."""
        windows = self._rule.cut(np.clip(samples, -1.0, 1.0))
        return np.concatenate([self._embed(windows[start : start + BATCH]) for start in range(0, len(windows), BATCH)])

    def embed_text(self, texts: list[str]) -> Float:
        """Return raw projected vectors (texts, d)."""
        most = min(MOST_TOKENS, int(self._model.config.text_config.max_position_embeddings) - 2)
        with torch.inference_mode():
            tokens = self._tokenizer(
                texts, padding="max_length", truncation=True, max_length=most, return_tensors="pt"
            ).to(self._device)
            state = self._model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
            return self._model.text_projection(state.pooler_output).float().cpu().numpy()

    def scores(self, clips: list[Float], texts: list[str]) -> Vectors:
        """Return the cosines (clips, texts) of embedded clips and texts."""
        return cosine_scores(clips, self.embed_text(texts))

    def _embed(self, windows: Float) -> Float:
        features = self._extractor(
            list(windows),
            sampling_rate=self.rate,
            truncation="fusion" if self._fusion else "rand_trunc",  # exact windows: nothing is truncated
            return_tensors="pt",
        )["input_features"]
        none_longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=self._device)
        with torch.inference_mode():
            state = self._model.audio_model(input_features=features.to(self._device), is_longer=none_longer)
            return self._model.audio_projection(state.pooler_output).float().cpu().numpy()


def _folder(source: str) -> Path:
    """Return the local folder of a model: as given, or the hub's snapshot of an id."""
    path = Path(source)
    if path.is_file() or path.suffix in PICKLES:
        raise InputError(
            f"{source}: a pickled checkpoint, which can run code when it is opened; convert it once with "
            f"`sdxl-mel convert-clap {source} --out FOLDER` and give the folder"
        )
    if path.is_dir():
        return path
    if source.count("/") != 1 or source.startswith(("/", ".")):
        raise MissingError(f"{source}: no such folder; {HOW_TO_GET}")
    try:
        return Path(snapshot_download(source, ignore_patterns=[f"*{suffix}" for suffix in PICKLES]))
    except (OSError, ValueError) as error:
        why = first_line(error)
        raise MissingError(f"{source}: CLAP is not here and cannot be fetched ({why}); {HOW_TO_GET}") from error


def _weights_file(folder: Path) -> Path:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FormatError(f"{folder}: no .safetensors weights here; {HOW_TO_GET}")
    return files[0]


def _family(folder: Path) -> str | None:
    origin = folder / ORIGIN_FILE
    if not origin.is_file():
        return None
    try:
        name = str(parse_json(origin.read_bytes())["checkpoint"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{origin}: damaged; convert the checkpoint again") from error
    return name.split("_epoch", 1)[0]
