"""The refiner: what it sees of a picture, its size for mini, and files read or refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from sdxl_mel.diffusion.circular import circular_in_time
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.models.carried import write_carried
from sdxl_mel.models.refiner import Refiner, new_refiner, read_refiner, refine, refining_flops
from sdxl_mel.models.small_decoder import decoding_flops
from sdxl_mel.sound.melspec import LATENT_FACTOR, PRESETS
from tests.true_size import meta_sdxl


def _refiner(channels: int = 1) -> Refiner:
    """Return a small one in which every weight counts."""
    generator = torch.Generator().manual_seed(0)
    refiner = new_refiner(channels, (8, 8, 16), 1, 1, draw_steps=2, churn=0.0, vae="hash")
    for parameter in refiner.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    refiner.spread.copy_(torch.linspace(0.1, 0.5, 256))
    return refiner.requires_grad_(False).eval()


def _drawn(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(shape, generator=generator) * 2 - 1, torch.randn(shape, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
def test_at_first_it_says_nothing_and_noise_is_added_in_units_of_the_spread(channels):
    refiner = new_refiner(channels, (8, 8), 1, 1, draw_steps=1, churn=0.0, vae="")
    refiner.spread.fill_(0.25)
    pictures, noise = _drawn(2, channels, 16, 32)
    assert torch.allclose(refine(refiner, pictures, noise, 3), pictures + 0.25 * noise, atol=1e-6)


def test_a_place_depends_on_its_surroundings_alone():
    """Of a window cut from a picture, all that lies far enough from its ends is as in the whole."""
    refiner = _refiner()
    pictures, noise = _drawn(1, 1, 16, 512)
    whole = refine(refiner, pictures, noise, 1)
    window = refine(refiner, pictures[..., 128:384], noise[..., 128:384], 1)
    inside = slice(112, 256 - 112)
    assert torch.allclose(window[..., inside], whole[..., 128:384][..., inside], atol=1e-4)
    assert not torch.allclose(window[..., :8], whole[..., 128:136], atol=1e-2)


def test_on_a_circle_a_turned_picture_is_refined_the_same():
    refiner = _refiner()
    pictures, noise = _drawn(1, 1, 16, 64)
    with circular_in_time(refiner):
        made = refine(refiner, pictures, noise, 2)
        turned = refine(refiner, pictures.roll(24, dims=-1), noise.roll(24, dims=-1), 2)
    assert torch.allclose(turned, made.roll(24, dims=-1), atol=1e-4)


def test_the_spread_is_that_of_a_places_level():
    refiner = _refiner()
    levels = torch.arange(256.0).view(1, 1, 16, 16)
    assert torch.equal(refiner.spread_in(levels / 127.5 - 1).flatten(), refiner.spread)
    assert torch.equal(refiner.spread_in(torch.full((1, 1, 2, 2), 1.5)).flatten()[:1], refiner.spread[-1:])


@pytest.mark.parametrize(("preset", "gflop"), [("mini", 2.02), ("std", 32.35)])
def test_what_a_call_takes_for_a_tile(preset, gflop):
    refiner = new_refiner(1, (32, 64, 128), 1, 2, draw_steps=4, churn=0.0, vae="")
    spec = PRESETS[preset]
    assert refining_flops(refiner, spec.n_mels, spec.width) / 1e9 == pytest.approx(gflop, abs=0.005)
    assert sum(each.numel() for each in refiner.parameters()) / 1e6 == pytest.approx(0.92, abs=0.005)


def test_beside_sdxls_decoder_its_steps_are_few_percent():
    refiner = new_refiner(1, (32, 64, 128), 1, 2, draw_steps=2, churn=0.0, vae="")
    vae, spec = meta_sdxl()["vae"], PRESETS["std"]
    decoding = decoding_flops(vae, spec.n_mels // LATENT_FACTOR, spec.width // LATENT_FACTOR)
    assert 4 * refining_flops(refiner, spec.n_mels, spec.width) / decoding == pytest.approx(0.0253, abs=0.0003)


def test_written_and_read_again(tmp_path):
    refiner = _refiner()
    write_carried(tmp_path / "base" / "refiner", refiner, torch.float32)
    pictures, noise = _drawn(1, 1, 16, 32)
    for folder in (tmp_path / "base", tmp_path / "base" / "refiner"):
        again = read_refiner(folder)
        assert again is not None
        assert torch.equal(refine(again, pictures, noise, 2), refine(refiner, pictures, noise, 2))
        assert (again.config.vae, again.config.draw_steps) == ("hash", 2)
    assert read_refiner(tmp_path) is None


def test_damaged_ones_are_refused(tmp_path):
    folder = tmp_path / "refiner"
    write_carried(folder, _refiner())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"widths": [8, 8]}))
    with pytest.raises(FormatError, match="tensors do not match its config.json, first: "):
        read_refiner(tmp_path)
    (folder / "config.json").write_text(json.dumps(config | {"widths": [8, "x"]}))
    with pytest.raises(FormatError, match="no refiner can be made of its config"):
        read_refiner(tmp_path)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({}, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(FormatError, match="first: conv_in.bias"):
        read_refiner(tmp_path)


def test_a_refiner_has_a_level():
    with pytest.raises(InputError, match=r"refiner.widths: found none"):
        new_refiner(1, (), 1, 1, draw_steps=1, churn=0.0, vae="")
