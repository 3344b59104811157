"""Our step, or that of diffusers' example, beside kohya's: `python -m bench.kohya.ours WHOSE SETTINGS`."""

import json
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.kohya.measure import measure, tell
from bench.train import open_loop, our_step
from bench.train_models import MINI, SDXL, SDXL_UNET, Size, random_models
from bench.train_peer import LINEAR, peer_step
from sdxl_mel.models.family import DTYPES
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.training.model import quick_attention

LEVELS = (1, 2, 4)
HEAD = 64


def size_of(chosen: dict[str, Any]) -> Size:
    """Return SDXL at a width; where that is not its own, 320, with the VAE of the tiny size and fewer text layers."""
    width = chosen["width"]
    unet = SDXL_UNET | {
        "block_out_channels": tuple(width * level for level in LEVELS),
        "attention_head_dim": tuple(width * level // HEAD for level in LEVELS),
    }
    size = replace(SDXL, unet=unet, spec=PRESETS[chosen["preset"]], batch=chosen["batch"], rank=chosen["rank"])
    if unet == SDXL_UNET:
        return size
    first, second = (text | {"num_hidden_layers": 2} for text in SDXL.texts)
    return replace(size, vae=MINI.vae, texts=(first, second))


def main(whose: str, chosen: dict[str, Any]) -> None:
    """Measure one of both."""
    size, dtype = size_of(chosen), DTYPES[chosen["precision"]]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if whose == "diffusers":
        models = random_models(size, device, dtype, whole=True)
        tell(measure(peer_step(models, size, device, dtype, LINEAR), models.unet, chosen["steps"]))
        return
    with tempfile.TemporaryDirectory() as folder:
        task, loop = open_loop(size, device, dtype, Path(folder), ("all-linear",))
        with closing(loop.drawn_ahead()) as batches, quick_attention(task.model):
            tell(measure(our_step(loop, batches), task.model.unet, chosen["steps"]))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
