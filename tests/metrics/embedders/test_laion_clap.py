"""LAION's package is opened without torchvision, and without our command line; a stand-in of it asks for both."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sdxl_mel.errors import InputError, MissingError
from sdxl_mel.metrics.embedders.laion_clap import LaionClapEmbedder

PACKAGE = """
import argparse, sys
import torch
import torchvision.datasets as datasets
from torchvision.ops.misc import FrozenBatchNorm2d
from torchvision.transforms import Compose, Resize
sys.path.append("somewhere")
parser = argparse.ArgumentParser()
parser.parse_args()


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.audio_branch = torch.nn.Linear(1, 1)

    def get_audio_embedding(self, windows):
        return torch.stack([each["waveform"].mean() * torch.ones(512) for each in windows])


class CLAP_Module(torch.nn.Module):
    def __init__(self, amodel):
        super().__init__()
        if "needs the hub" in open(__file__).read().splitlines()[-1]:
            raise OSError("cannot reach roberta-base")
        self.model = Model()

    def get_text_embedding(self, texts):
        return torch.ones(len(texts), 512).numpy()
"""


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["sdxl-mel", "evaluate", "--generated", "here"])
    monkeypatch.delitem(sys.modules, "laion_clap", raising=False)
    path = tmp_path / "laion_clap.py"
    path.write_text(PACKAGE)
    yield path
    sys.modules.pop("laion_clap", None)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    linear = torch.nn.Linear(1, 1).state_dict()
    tensors = {f"module.audio_branch.{name}": each for name, each in linear.items()}
    torch.save({"state_dict": tensors}, tmp_path / "music_audioset_epoch_15.pt")
    return tmp_path / "music_audioset_epoch_15.pt"


def test_it_opens_without_torchvision_and_leaves_no_trace(package, checkpoint):
    path, words = list(sys.path), list(sys.argv)
    embedder = LaionClapEmbedder(checkpoint)
    assert (sys.path, sys.argv) == (path, words)
    assert not [name for name in sys.modules if name.startswith("torchvision")]
    samples = np.full(48000 * 12, 0.5, np.float32)
    assert embedder.embed_audio(samples) == pytest.approx(np.full((2, 512), 0.5))
    assert embedder.scores([embedder.embed_audio(samples)], ["a"]) == pytest.approx(np.ones((1, 1)))


def test_a_hub_that_cannot_be_reached_names_the_other_way(package, checkpoint):
    package.write_text(PACKAGE + "# needs the hub\n")
    with pytest.raises(MissingError, match="cannot reach roberta-base.*convert-clap"):
        LaionClapEmbedder(checkpoint)


def test_a_fusion_checkpoint_is_refused_by_name(package, checkpoint):
    with pytest.raises(InputError, match="torchaudio.*convert-clap"):
        LaionClapEmbedder(checkpoint.rename(checkpoint.with_name("630k-fusion-best.pt")))
