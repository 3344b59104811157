"""What training SDXL's decoder costs at its true size, counted for a card of 24 GB; and one real step of it."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from sdxl_mel.commands import run_command
from sdxl_mel.config import read_toml, validated
from sdxl_mel.files.dataset import Dataset, Item, write_dataset
from sdxl_mel.files.run import read_metrics
from sdxl_mel.models.base import open_base
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.training.decoder_costs import count_decoder, memory_of_decoder
from sdxl_mel.training.decoder_settings import Config
from sdxl_mel.training.discriminator import Discriminator
from tests.tiles import write_noise
from tests.tiny_models import tiny_vae
from tests.true_size import meta_sdxl

CONFIG = Path(__file__).parents[2] / "configs" / "decoder-24gb.toml"
GIB = 2**30
SQUARE = PRESETS["mini"].model_copy(update={"n_mels": 256, "width": 256, "n_fft": 4096})


def test_checkpointing_keeps_less_and_computes_more():
    vae = tiny_vae()
    size = {"batch": 2, "height": 4, "width": 8, "dtype": torch.bfloat16}
    plain, checkpointed = count_decoder(vae, **size), count_decoder(vae, **size, checkpointing=True)
    trained = sum(each.numel() for name, each in vae.named_parameters() if name.startswith(("decoder", "post_quant")))
    assert plain.adapter_parameters == checkpointed.adapter_parameters == trained
    assert checkpointed.saved_bytes + checkpointed.transient_bytes < plain.saved_bytes
    assert checkpointed.flops > 1.3 * plain.flops
    wider = count_decoder(vae, **size | {"width": 16})
    assert 1.9 < wider.saved_bytes / plain.saved_bytes < 2.1


def test_a_discriminator_is_counted():
    size = {"batch": 2, "height": 4, "width": 8, "dtype": torch.bfloat16}
    alone, both = count_decoder(tiny_vae(), **size), count_decoder(tiny_vae(), **size, discriminator=Discriminator(1))
    own = sum(each.numel() for each in Discriminator(1).parameters())
    assert both.adapter_parameters == alone.adapter_parameters + own
    assert both.base_parameters == alone.base_parameters
    # Its first layer is called three times, and each time keeps a picture of bfloat16 and a row beside each of it.
    assert both.saved_bytes > alone.saved_bytes + 3 * 2 * 2 * (32 * 64 * 2)
    assert both.flops > alone.flops


@pytest.mark.parametrize(
    ("frames", "checkpointing", "discriminator", "gib", "tflop"),
    [
        (1024, False, False, 10.80, 15.36),
        pytest.param(1024, True, False, 6.76, 20.48, marks=pytest.mark.slow),
        pytest.param(512, False, False, 6.11, 7.56, marks=pytest.mark.slow),
        pytest.param(512, True, False, 4.05, 10.08, marks=pytest.mark.slow),
        pytest.param(1024, False, True, 10.9, 15.4, marks=pytest.mark.slow),
    ],
)
def test_sdxls_decoder_is_trained_on_whole_tiles_of_std_on_a_card_of_24_gb(
    frames, checkpointing, discriminator, gib, tflop
):
    given = read_toml(CONFIG) | {"base": "b", "dataset": "d", "cache": "c", "out": "o"}
    config = validated(Config, given, "decoder-24gb")
    assert config.crop is None and config.micro_batch == 1 and not config.hardware.gradient_checkpointing
    height = PRESETS["std"].n_mels // 8
    costs = count_decoder(
        meta_sdxl()["vae"],
        batch=1,
        height=height,
        width=frames // 8,
        dtype=torch.bfloat16,
        checkpointing=checkpointing,
        discriminator=Discriminator(2) if discriminator else None,
    )
    total = sum(memory_of_decoder(costs, config.loop, torch.bfloat16).values()) / GIB
    print(f"{frames} frames, checkpointing {checkpointing}: {total:.1f} GiB, {costs.flops / 1e12:.1f} TFLOP")
    assert total == pytest.approx(gib, rel=0.01)
    assert costs.flops / 1e12 == pytest.approx(tflop, rel=0.01)


@pytest.mark.slow
def test_one_step_of_sdxls_decoder_at_256_x_256(slim_sdxl, tmp_path):
    torch.manual_seed(0)
    config = {name: value for name, value in meta_sdxl()["vae"].config.items() if not name.startswith("_")}
    AutoencoderKL(**config).save_pretrained(tmp_path / "vae")
    dataset = tmp_path / "dataset"
    (dataset / "train").mkdir(parents=True)
    write_noise(dataset / "train" / "0.png", SQUARE, seed=0)
    item = Item(file="train/0.png", captions=("mel spectrogram, noise",), track="noise")
    write_dataset(dataset, Dataset(SQUARE, "mel spectrogram", {"train": [item]}, Record(stage="test")))
    shared = ["--base", str(slim_sdxl), "--vae", str(tmp_path / "vae"), "--dataset", str(dataset)]
    run_command("cache", [*shared, "--out", str(tmp_path / "cache")])
    words = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run"), "--steps", "1", "--batch", "1"]
    run_command(
        "train", ["--task", "decoder", *shared, *words, "--validation.every", "0", "--hardware.precision", "bf16"]
    )
    (step,) = read_metrics(tmp_path / "run")
    assert step["absolute"] > 0 and step["gradient"] > 0
    before, after = (open_base(slim_sdxl, ("vae",), vae=tmp_path / name) for name in ("vae", "run/vae"))
    assert after.identity_of("vae") != before.identity_of("vae")
    assert after.latents_identity == before.identity_of("vae")
