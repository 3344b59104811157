"""The small decoder: the VAE's own at full size, a quarter of its arithmetic and less, and files read or refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.models.carried import write_carried
from sdxl_mel.models.small_decoder import (
    DecoderShape,
    SmallDecoder,
    decoding_flops,
    read_small_decoder,
    small_decoder_of,
)
from sdxl_mel.models.vae import decode_latents
from sdxl_mel.sound.melspec import PRESETS
from tests.tiny_models import tiny_vae
from tests.true_size import meta_sdxl

WIDTHS = (8, 8, 16, 16)


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return tiny_vae().eval()


@pytest.fixture(scope="module")
def latents():
    return torch.randn(2, 4, 4, 8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _small(vae, latents, *shape):
    return small_decoder_of(vae, DecoderShape(*shape), lambda: vae.decode(latents), "hash")


@torch.no_grad()
def test_of_the_same_shape_it_makes_the_same_pictures(vae, latents):
    small = _small(vae, latents, WIDTHS, 2)
    assert torch.allclose(small.decode(latents).sample, vae.decode(latents).sample, atol=1e-5)
    spec = PRESETS["mini"].model_copy(update={"n_mels": 32, "width": 64})
    ours, theirs = (decode_latents(model, latents, spec) for model in (small, vae))
    assert all(abs(one.astype(int) - other).max() <= 1 for one, other in zip(ours, theirs))


@pytest.mark.parametrize("shape", [((4, 4, 8, 8), 0), ((4, 8, 12, 16), 1), ((4, 4, 8, 12), 0, False)])
@torch.no_grad()
def test_smaller_shapes_decode_to_the_same_size(vae, latents, shape):
    small = _small(vae, latents, *shape)
    made = small.decode(latents).sample
    assert made.shape == (2, 3, 32, 64)
    assert made.isfinite().all()
    assert decoding_flops(small, 4, 8) < decoding_flops(vae, 4, 8)


def test_what_sdxls_takes_for_a_tile_of_the_preset_web():
    vae = meta_sdxl()["vae"]
    with torch.device("meta"):
        small = SmallDecoder(block_out_channels=(32, 64, 128, 256), norm_num_groups=32)
    height, width = PRESETS["web"].n_mels // 8, PRESETS["web"].width // 8
    assert decoding_flops(small, height, width) / 1e9 == pytest.approx(72.5, abs=0.5)
    assert decoding_flops(vae, height, width) / 1e9 == pytest.approx(1249, abs=1)
    assert sum(each.numel() for each in small.parameters()) / 1e6 == pytest.approx(5.2, abs=0.05)


@torch.no_grad()
def test_written_and_read_again(vae, latents, tmp_path):
    small = _small(vae, latents, (4, 4, 8, 8))
    write_carried(tmp_path / "base" / "small_decoder", small, torch.float32)
    for folder in (tmp_path / "base", tmp_path / "base" / "small_decoder"):
        again = read_small_decoder(folder)
        assert again is not None
        assert torch.allclose(again.decode(latents).sample, small.decode(latents).sample, atol=1e-5)
        assert again.config.vae == "hash"
        assert again.config.scaling_factor == vae.config.scaling_factor
    assert read_small_decoder(tmp_path) is None


def test_damaged_ones_are_refused(vae, latents, tmp_path):
    folder = tmp_path / "small_decoder"
    write_carried(folder, _small(vae, latents, (4, 4, 8, 8)))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"block_out_channels": [4, 4, 8, 16]}))
    with pytest.raises(FormatError, match="tensors do not match its config.json, first: decoder"):
        read_small_decoder(tmp_path)
    (folder / "config.json").write_text(json.dumps(config | {"norm_num_groups": 3}))
    with pytest.raises(FormatError, match="no decoder can be made of its config"):
        read_small_decoder(tmp_path)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({}, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(FormatError, match="first: decoder"):
        read_small_decoder(tmp_path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (((4, 4, 8), 0), "expected 4 widths"),
        (((4, 4, 8, 10), 0), "multiples of 4"),
        (((16, 8, 16, 16), 0), "16 of 8 is more"),
        (((4, 8, 8, 16), 0), "levels of one width are those of the VAE"),
        ((WIDTHS, 3), "3 layers of 2 is more"),
    ],
)
def test_shapes_that_cannot_be_are_refused(vae, latents, shape, message):
    with pytest.raises(InputError, match=message):
        _small(vae, latents, *shape)
