"""The audit: a perfect VAE costs nothing, a real one what can be computed by hand; the page holds what it must."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sdxl_mel.cli import main
from sdxl_mel.errors import InputError
from sdxl_mel.evaluation.vae_audit import BANDS, choose_clips, evenly, extremes, measure_clips
from sdxl_mel.files.dataset import read_dataset
from sdxl_mel.files.spectrogram import read_tile
from sdxl_mel.models.base import open_base
from tests.tiles import write_tiles


class Perfect:
    """A VAE that loses nothing: its latents are the pictures."""

    device, dtype = "cpu", torch.float32

    def encode(self, images: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=images, logvar=images * 0))

    def decode(self, latents: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=latents)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiles(tmp_path_factory.mktemp("tiles"), clips=8)


def test_a_perfect_vae_costs_nothing(tiles: Path) -> None:
    dataset = read_dataset(tiles)
    for clip in measure_clips(Perfect(), dataset, dataset.splits["train"], 1 << 20):
        np.testing.assert_allclose(clip.before, clip.after, atol=1e-6)
        assert clip.mel_error_db < 0.01


def test_clips_come_best_first_whatever_the_batch(tiles: Path, tiny_sdxl: Path) -> None:
    dataset, vae = read_dataset(tiles), open_base(tiny_sdxl, ("vae",)).vae
    together, alone = (measure_clips(vae, dataset, dataset.splits["train"], size) for size in (1 << 20, 1))
    errors = [clip.mel_error_db for clip in together]
    assert errors == sorted(errors)
    assert [clip.source for clip in together] == [clip.source for clip in alone]
    np.testing.assert_allclose(errors, [clip.mel_error_db for clip in alone], rtol=1e-4)
    before = read_tile(tiles / together[0].source, dataset.spec) / 255
    np.testing.assert_allclose(together[0].before, before, atol=1e-6)


def test_ranks() -> None:
    assert evenly(100, 3) == [0, 50, 99] or evenly(100, 3) == [0, 49, 99]
    assert evenly(2, 8) == [0, 1] and evenly(1, 1) == [0]
    assert extremes(10) == [0, 1, 2, 7, 8, 9] and extremes(2) == [0, 1]


def test_choice_of_clips(tiles: Path) -> None:
    dataset = read_dataset(tiles)
    split, items = choose_clips(dataset, None, 1, seed=0)
    assert split == "validation" and len(items) == 1
    assert choose_clips(dataset, "train", 99, seed=0)[1] == dataset.splits["train"]
    with pytest.raises(InputError, match=r"no clips in split 'test'; there are validation, train"):
        choose_clips(dataset, "test", 4, seed=0)


def test_the_door_and_the_report(
    tiles: Path, tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["vae-audit", "--base", str(tiny_sdxl), "--dataset", str(tiles), "--clips", "4", "--sounds", "1"]
    assert main([*words, "--split", "train", "--method", "fast", "--out", str(tmp_path), "--quiet"]) == 0
    assert "VAE round trip of 4 clips (train): PSNR" in capsys.readouterr().out
    figures = json.loads((tmp_path / "audit.json").read_text())
    assert len(figures["bands"]) == BANDS and len(figures["clips"]) == 4
    assert figures["convergence_without_db"] < figures["convergence_with_db"]
    assert figures["record"]["inputs"]["vae"] == open_base(tiny_sdxl, ("vae",)).identity["vae"]
    page = (tmp_path / "report.html").read_text()
    for part in ("Worst clips", "Best clips", "By band", "<svg", "data:image/png", "data:audio/ogg"):
        assert part in page
    assert str(tmp_path) not in page
    assert main(["vae-audit", "--base", str(tiny_sdxl), "--dataset", str(tmp_path)]) == 2


def test_a_vae_beside_itself_changes_nothing(
    tiles: Path, tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["vae-audit", "--base", str(tiny_sdxl), "--dataset", str(tiles), "--clips", "4", "--sounds", "1"]
    words += ["--split", "train", "--method", "fast", "--out", str(tmp_path), "--quiet"]
    assert main([*words, "--vae", str(tiny_sdxl / "vae"), "--against", str(tiny_sdxl), "--embedder", "mel"]) == 0
    assert "change 0.0000 (0.0000 to 0.0000)" in capsys.readouterr().out
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert audit["against"] == {name: audit[name] for name in audit["against"]}
    assert audit["distances"]["embedder"] == "mel"
    assert audit["distances"]["fad"] == audit["distances"]["fad_against"]
    assert audit["distances"]["fad"]["value"] > 0
    assert len(audit["texture_db"]) == 4
    page = (tmp_path / "report.html").read_text()
    for part in (f"Beside the VAE of {tiny_sdxl.name}", "Distance of the sounds", f"after {tiny_sdxl.name}"):
        assert part in page
    assert main([*words, "--embedder", "clap"]) == 2
