"""The recipe of the mini base: its training loop resumes exactly, its shortcuts change nothing, its words are words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sdxl_mel.seeding import numpy_generator, torch_generator
from tools.mini_base.captions import ANCHOR, drawn_caption
from tools.mini_base.networks import new_tokenizer, new_vae
from tools.mini_base.optimizer import Muon, optimizers, orthogonal
from tools.mini_base.speed import GroupNormFunction
from tools.mini_base.training import Schedule, Training
from tools.mini_base.vae import (
    SCALING_FACTOR,
    decoded,
    encoded,
    round_trip_error,
    to_common_scale,
    to_levels,
    to_signal,
)
from tools.mini_base.words import WORDS

SCHEDULE = Schedule(steps=6, lr=1e-2, adam_lr=1e-2, warmup=2, report_steps=100, save_seconds=0.0)


def loss_of(network: torch.nn.Module, step: int, part: int) -> torch.Tensor:
    x = torch.randn(4, 16, generator=torch_generator(0, "x", step, part))
    return (network(x) - x.roll(1, 1)).square().mean()


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.SiLU(), torch.nn.Linear(32, 16))


def test_a_resumed_training_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    def stop_at_three(*arguments: int) -> torch.Tensor:
        if arguments[1] == 3:
            raise KeyboardInterrupt
        return loss_of(*arguments)

    whole = Training(network(), SCHEDULE, tmp_path / "whole.safetensors").run(loss_of, lambda *_: "")
    with pytest.raises(KeyboardInterrupt):
        Training(network(), SCHEDULE, tmp_path / "parts.safetensors").run(stop_at_three, lambda *_: "")
    resumed = Training(network(), SCHEDULE, tmp_path / "parts.safetensors")
    assert resumed.step == 3
    for first, second in zip(whole.parameters(), resumed.run(loss_of, lambda *_: "").parameters()):
        assert torch.equal(first, second)


def test_parts_in_threads_are_one_batch(tmp_path: Path) -> None:
    one = Training(network(), replace(SCHEDULE, threads=1), tmp_path / "one.safetensors")
    both = one.run(lambda net, step, _: (loss_of(net, step, 0) + loss_of(net, step, 1)) / 2, lambda *_: "")
    parts = Training(network(), SCHEDULE, tmp_path / "two.safetensors").run(loss_of, lambda *_: "")
    for first, second in zip(both.parameters(), parts.parameters()):
        assert torch.allclose(first, second, atol=1e-3)


def test_the_schedule_rises_stays_and_ends_at_zero() -> None:
    schedule = Schedule(steps=100, lr=1.0, adam_lr=1.0, warmup=10)
    assert schedule.rate(0) == pytest.approx(0.1)
    assert schedule.rate(30) == 1.0
    assert 0 < schedule.rate(80) < 1
    assert schedule.rate(99) < 0.002


def test_group_norm_has_the_values_and_gradients_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    x, w, b, g = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 32, 9, 7), (32,), (32,), (3, 32, 9, 7))
    )
    ours = GroupNormFunction.apply(x, w, b, 8, 1e-5)
    torchs = torch.nn.functional.group_norm(x, 8, w, b, 1e-5)
    assert torch.allclose(ours, torchs, atol=1e-12)
    for one, other in zip(torch.autograd.grad(ours, (x, w, b), g), torch.autograd.grad(torchs, (x, w, b), g)):
        assert torch.allclose(one, other, atol=1e-10)


def test_newton_schulz_brings_singular_values_near_one() -> None:
    for shape in ((24, 40), (40, 24)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonal(matrix))
        assert values.min() > 0.5 and values.max() < 1.4


def test_embeddings_norms_and_narrow_matrices_are_left_to_adam() -> None:
    net = torch.nn.ModuleList([torch.nn.Embedding(40, 32), torch.nn.Linear(32, 32), torch.nn.Linear(32, 4)])
    *muons, adam = optimizers(net, 1e-3, 1e-3, 2)
    assert all(isinstance(muon, Muon) for muon in muons)
    shapes = [tuple(p.shape) for muon in muons for group in muon.param_groups for p in group["params"]]
    assert shapes == [(32, 32)]
    assert len(adam.param_groups[0]["params"]) == 4


def test_every_word_is_one_token_and_the_rest_is_spelt() -> None:
    tokenizer = new_tokenizer("!")
    assert all(tokenizer.tokenize(word) == [word + "</w>"] for word in WORDS)
    assert "".join(tokenizer.tokenize("zither xylorimba")) == "zither</w>xylorimba</w>"


def test_captions_keep_who_plays_and_are_sometimes_empty() -> None:
    captions = ["instrumental, flute and piano, slow, minor key, folk reel", "a sentence of flute and piano", "short"]
    drawn = [drawn_caption(captions, numpy_generator(0, "caption", index)) for index in range(400)]
    assert 0.05 < drawn.count("") / len(drawn) < 0.16
    tagged = [caption for caption in drawn if "instrumental" in caption]
    assert all("flute and piano" in caption for caption in tagged)
    assert len({caption.removeprefix(f"{ANCHOR}, ") for caption in tagged}) > 4
    assert 0.3 < np.mean([caption.startswith(ANCHOR) for caption in drawn]) < 0.6


def test_pictures_reach_the_network_upright_and_come_back() -> None:
    levels = numpy_generator(0, "levels").integers(0, 256, (2, 128, 16), dtype=np.uint8)
    signal = to_signal(levels)
    assert signal.shape == (2, 3, 128, 16)
    assert float(signal[0, 0, -1, 0]) == pytest.approx(levels[0, 0, 0] / 127.5 - 1)
    assert np.array_equal(to_levels(signal), levels)
    assert round_trip_error(levels, levels)[1] == 0.0


def test_the_common_scale_keeps_the_round_trip() -> None:
    torch.manual_seed(0)
    vae = new_vae()
    levels = numpy_generator(0, "levels").integers(0, 256, (2, 128, 64), dtype=np.uint8)
    before = decoded(vae, encoded(vae, levels))
    latents = encoded(to_common_scale(vae, levels), levels)
    assert torch.allclose(latents.std((0, 2, 3)), torch.full((4,), 1 / SCALING_FACTOR), rtol=0.05)
    assert latents.mean((0, 2, 3)).abs().max() < 0.5
    assert np.abs(decoded(vae, latents).astype(int) - before.astype(int)).mean() < 1.5
