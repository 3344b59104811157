"""Training a VAE's decoder: what stays bit for bit, who takes the result, and what the losses are of known pictures."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from sdxl_mel.commands import parse_command, run_command
from sdxl_mel.config import validated
from sdxl_mel.errors import MismatchError
from sdxl_mel.files.cache import open_cache, read_header
from sdxl_mel.files.run import read_metrics
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.models.base import open_base
from sdxl_mel.models.derived import config_of
from sdxl_mel.models.vae import encode
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages import fuse, train
from sdxl_mel.training.decoder_settings import Config
from sdxl_mel.training.picture_losses import PictureLoss, decibels_by_level, signals, windowed_magnitudes
from sdxl_mel.training.tasks import TASKS
from tests.caches import SMALL

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def run_of(slim_sdxl, small_cache):
    """Return a function that trains a decoder into a folder."""

    def run(out, **changes):
        settings = {"base": str(slim_sdxl), "dataset": small_cache.parent / "dataset", "cache": small_cache, "out": out}
        settings |= {"steps": 2, "batch": 2, "trackers": (), "loss": {"sizes": (4, 8)}, "validation": {"clips": 1}}
        return train.run(validated(Config, settings | {"optimizer": {"rate": 1e-3}} | changes, "test"))

    return run


@pytest.fixture(scope="module")
def tuned(run_of, tmp_path_factory):
    """Return the folder of a run."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    run_of(out)
    return out


def test_the_encoder_stays_bit_for_bit_and_the_decoder_moves(tuned, slim_sdxl):
    before, after = (load_file(place / WEIGHTS) for place in (slim_sdxl / "vae", tuned / "vae"))
    assert before.keys() == after.keys()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved
    assert {name.partition(".")[0] for name in moved} == {"decoder", "post_quant_conv"}
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    one, two = (encode(open_base(slim_sdxl, ("vae",), vae=vae).vae, images) for vae in (None, tuned / "vae"))
    assert torch.equal(one.mean, two.mean)
    assert torch.equal(one.logvar, two.logvar)


def test_a_cache_of_the_base_is_one_of_the_new_decoder(tuned, slim_sdxl, small_cache, tmp_path):
    base, other = (open_base(slim_sdxl, ("vae",), vae=vae) for vae in (None, tuned / "vae"))
    assert other.identity_of("vae") != base.identity_of("vae")
    assert other.latents_identity == base.latents_identity == base.identity_of("vae")
    assert open_cache(small_cache).header.identity["vae"] == other.latents_identity
    words = ["--dataset", str(small_cache.parent / "dataset"), "--base", str(slim_sdxl), "--variants", "1"]
    run_command("cache", ["verify", "--out", str(small_cache), *words, "--vae", str(tuned / "vae")])
    made = tmp_path / "made"
    run_command("cache", [*words, "--vae", str(tuned / "vae.safetensors"), "--out", str(made)])
    assert read_header(made) == read_header(small_cache)


def test_of_another_encoder_the_statement_is_not_believed(tuned, slim_sdxl, tmp_path):
    folder = shutil.copytree(tuned / "vae", tmp_path / "vae")
    tensors = load_file(folder / WEIGHTS)
    tensors["encoder.conv_in.bias"] += 1
    with (folder / WEIGHTS).open("rb") as file:
        metadata = json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]
    save_file(tensors, folder / WEIGHTS, metadata)
    swapped = open_base(slim_sdxl, ("vae",), vae=folder)
    assert swapped.latents_identity == swapped.identity_of("vae")


def test_the_folder_and_the_single_file_are_one_vae_for_every_program(tuned, slim_sdxl):
    folder, single = (open_base(slim_sdxl, ("vae",), vae=tuned / name) for name in ("vae", "vae.safetensors"))
    assert folder.identity_of("vae") == single.identity_of("vae")
    assert folder.latents_identity == single.latents_identity
    names = load_file(tuned / "vae.safetensors")
    assert names["decoder.mid.attn_1.q.weight"].shape == (16, 16, 1, 1)
    assert {name.partition(".")[0] for name in names} == {"encoder", "decoder", "quant_conv", "post_quant_conv"}
    model = AutoencoderKL.from_pretrained(tuned / "vae")
    loaded = model.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in folder.vae.state_dict().items())
    assert "_name_or_path" in model.config
    assert "_name_or_path" not in config_of(model)


def test_fuse_and_what_is_made_of_it_keep_decoder_and_statement(tuned, slim_sdxl, small_cache, tmp_path):
    lora = {"base": str(slim_sdxl), "vae": str(tuned / "vae"), "cache": small_cache, "out": tmp_path / "lora"}
    lora |= {"steps": 1, "batch": 1, "trackers": (), "adapter": {"rank": 1}, "validation": {"every": 0}}
    train.run(validated(TASKS["lora"].settings, lora, "test"))
    words = ["--base", str(slim_sdxl), "--lora", str(tmp_path / "lora" / "lora.safetensors")]
    new = open_base(slim_sdxl, ("vae",), vae=tuned / "vae")
    for name in ("fused", "fused.safetensors"):
        fuse.run(parse_command("fuse", [*words, "--vae", str(tuned / "vae"), "--out", str(tmp_path / name)]))
        fused = open_base(tmp_path / name, ("vae",))
        assert fused.identity_of("vae") == new.identity_of("vae"), name
        assert fused.latents_identity == new.latents_identity, name


def test_without_weight_nothing_is_drawn_and_no_setting_of_a_discriminator_matters(tuned, run_of, tmp_path):
    run_of(tmp_path / "run", adversarial={"rate": 0.1, "hold": 5.0, "share": 0.9, "warmup": 0}, redrawn={"steps": 3})
    assert (tmp_path / "run" / "vae" / WEIGHTS).read_bytes() == (tuned / "vae" / WEIGHTS).read_bytes()
    assert not (tmp_path / "run" / "redrawn_latents").exists()
    assert "discriminator" not in read_metrics(tmp_path / "run")[0]


def test_a_picture_that_changed_since_is_named(run_of, small_cache, tmp_path):
    dataset = shutil.copytree(small_cache.parent / "dataset", tmp_path / "dataset")
    for path in (dataset / "train").glob("*.png"):
        write_spectrogram(path, Spectrogram(np.zeros((SMALL.n_mels, SMALL.width, 1), np.uint8), SMALL))
    with pytest.raises(MismatchError, match=r"train/\d+.png: changed since .*; run sdxl-mel cache again"):
        run_of(tmp_path / "run", dataset=dataset)


def test_decibels_of_a_level_rise_where_it_is_dark():
    weights = decibels_by_level(PRESETS["mini"], 3.0)
    assert weights.shape == (256,)
    assert float(weights[-1]) == pytest.approx(1.0, abs=1e-3)
    assert float(weights[0]) == 3.0
    assert (weights.diff() <= 1e-4).all()
    # log1p: d dB / d value is proportional to 1 + 1 / expm1(value log1p(mu)).
    value = 40 / 255 * np.log1p(1000)
    assert float(weights[40]) == pytest.approx((1 + 1 / np.expm1(value)) / (1 + 1e-3), rel=2e-3)


def test_noise_of_deviation_one_has_spectra_of_mean_square_one():
    noise = torch.randn(1, 1, 256, 512, generator=torch.Generator().manual_seed(0))
    for size in (8, 16, 64):
        assert float(windowed_magnitudes(noise, size).square().mean()) == pytest.approx(1.0, rel=0.05)


def test_a_smooth_picture_pays_for_the_texture_it_lacks_and_a_quiet_one_for_its_level():
    generator = torch.Generator().manual_seed(0)
    grey = torch.zeros(1, 3, 64, 64)
    noisy, other = (grey + 0.2 * torch.randn(1, 1, 64, 64, generator=generator) for _ in range(2))
    loss = PictureLoss(torch.ones(256), 1.0, 4.0, 1.0, (8, 16), False)
    smooth, textured = (loss.terms(made, noisy, generator) for made in (grey, other))
    assert smooth["absolute"] < textured["absolute"]
    assert smooth["spectral"] > 1.5 * textured["spectral"]
    quieter = loss.terms(grey - 0.1, grey, None)
    assert float(quieter["absolute"]) == pytest.approx(12.75, rel=1e-4)
    assert float(quieter["level"]) == pytest.approx(12.75, rel=1e-4)
    assert all(float(term) == 0 for term in loss.terms(grey, grey, None).values())


def test_stereo_pictures_are_compared_as_mid_and_side():
    left, mid, right = torch.rand(3, 2, 1, 8, 8)
    assert torch.equal(signals(torch.cat([left, mid, right], 1), True), torch.cat([mid, (left - right) / 2], 1))
    assert torch.allclose(signals(torch.cat([left, mid, right], 1), False), (left + mid + right) / 3)
