"""A discriminator beside a decoder: its losses and norms by references, who learns from what, and what is drawn for it.

That a run of it resumes bit for bit and is the same in micro-batches, test_distillation.py says.
"""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from sdxl_mel.config import validated
from sdxl_mel.errors import InputError
from sdxl_mel.files.run import read_metrics
from sdxl_mel.stages import train
from sdxl_mel.training.adversary import Adversary
from sdxl_mel.training.decoder_settings import Config
from sdxl_mel.training.discriminator import Discriminator, NormalisedConv2d, decoder_loss, discriminator_loss
from sdxl_mel.training.state import saved_states

ADVERSARIAL = {"weight": 2.0, "warmup": 1}
REDRAWN = {"steps": 3, "share": 0.4}
WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


def _drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def adversary():
    """Return an adversary after its warm-up, without clips of its own."""
    redrawn: object = None
    return Adversary(Discriminator(1), redrawn, 2.0, 3.0, share=0.5, warmup=0, rate=1e-3, seed=0, stereo=False)


@pytest.fixture(scope="module")
def run_of(slim_sdxl, small_cache):
    """Return a function that trains a decoder into a folder."""

    def run(out, **changes):
        settings = {"base": str(slim_sdxl), "dataset": small_cache.parent / "dataset", "cache": small_cache, "out": out}
        settings |= {"steps": 2, "batch": 2, "trackers": (), "loss": {"sizes": (4, 8)}, "validation": {"every": 0}}
        settings |= {"optimizer": {"rate": 1e-3}, "redrawn": REDRAWN} | changes
        return train.run(validated(Config, settings, "test"))

    return run


@pytest.fixture(scope="module")
def finished(run_of, tmp_path_factory):
    """Return the folder of a run with a discriminator."""
    out = tmp_path_factory.mktemp("adversarial") / "run"
    run_of(out, adversarial=ADVERSARIAL, save_every=1)
    return out


def test_a_normalised_convolution_is_torchs_after_many_iterations():
    own = NormalisedConv2d(6, 12, 4, stride=2, padding=1)
    theirs = torch.nn.Conv2d(6, 12, 4, stride=2, padding=1)
    theirs.load_state_dict(own.state_dict())
    spectral_norm(theirs, n_power_iterations=500)
    images = _drawn(2, 6, 16, 16)
    assert torch.allclose(own(images), theirs(images), atol=1e-5)
    doubled = NormalisedConv2d(6, 12, 4, stride=2, padding=1)
    doubled.load_state_dict({"weight": 2 * own.weight, "bias": own.bias})
    assert torch.allclose(own(images), doubled(images), atol=1e-5)


def test_losses_are_torchs_hinge_losses():
    real, made = _drawn(3, 1, 4, 5), _drawn(3, 1, 4, 5, seed=1)
    below = torch.full_like(real, -1.0)
    wanted = F.hinge_embedding_loss(real, below, reduction="none") + F.hinge_embedding_loss(
        -made, below, reduction="none"
    )
    assert torch.allclose(discriminator_loss(real, made), wanted.mean((1, 2, 3)))
    assert torch.allclose(decoder_loss(made), -made.mean((1, 2, 3)))


def test_a_discriminator_hears_the_row_and_learns_what_is_real():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judge = Discriminator(1, (8, 16, 16, 16))
    answers = judge(torch.zeros(1, 1, 64, 160)).detach()
    assert answers.shape == (1, 1, 4, 10)
    middle = answers[0, 0, :, 3:-3]
    assert float(middle.std(dim=1).max()) < 1e-5 < 1e-3 < float(middle.std(dim=0).min())
    optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-2)
    rough, smooth = _drawn(4, 1, 32, 32), F.avg_pool2d(_drawn(4, 1, 34, 34), 3, stride=1)
    course = []
    for _ in range(15):
        loss = discriminator_loss(judge(rough), judge(smooth)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        course.append(float(loss.detach()))
    assert course[-1] < 0.5 * course[0]


def test_each_side_learns_from_its_own_terms_alone(adversary):
    made, wanted = (_drawn(2, 3, 32, 32, seed=seed).requires_grad_() for seed in (0, 1))
    cells = _drawn(2, 3, 4, 4, seed=2)
    terms = adversary.terms(made, wanted, cells, 0)
    weights = list(adversary.discriminator.parameters())

    def moved(term, what):
        gradients = torch.autograd.grad(term.sum(), what, allow_unused=True, retain_graph=True)
        return any(each is not None and bool(each.any()) for each in gradients)

    assert {name: (moved(term, [made]), moved(term, weights)) for name, term in terms.items()} == {
        "adversarial": (True, False),
        "hold": (True, False),
        "discriminator": (False, True),
    }
    picture = made.mean(dim=1, keepdim=True)
    assert torch.allclose(terms["adversarial"], 2 * decoder_loss(adversary.discriminator(picture)))
    pooled = made.detach().view(2, 3, 4, 8, 4, 8).mean((3, 5))
    assert torch.allclose(terms["hold"], 3 * 127.5 * (pooled - cells).abs().mean((1, 2, 3)), rtol=1e-4)
    waiting = replace(adversary, warmup=1).terms(made, wanted, cells, 0)
    assert not waiting["adversarial"].any()
    assert torch.equal(waiting["discriminator"], terms["discriminator"])


def test_latents_are_drawn_once_and_both_sides_move(finished, run_of, tmp_path):
    files = sorted((finished / "redrawn_latents").iterdir())
    assert 0 < len(files) < 10
    times = [path.stat().st_mtime_ns for path in files]
    again = {"adversarial": ADVERSARIAL, "redrawn_latents": finished / "redrawn_latents"}
    run_of(tmp_path / "run", **again)
    assert sorted((finished / "redrawn_latents").iterdir()) == files
    assert [path.stat().st_mtime_ns for path in files] == times
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (finished / WEIGHTS).read_bytes()
    first, last = read_metrics(finished)
    assert first["adversarial"] == 0 != last["adversarial"]
    assert first["hold"] > 0
    one, two = (load_file(path / "state.safetensors") for path in saved_states(finished))
    moved = {name.split(".")[0] for name, each in one.items() if not torch.equal(each, two[name])}
    assert {"adapter/decoder", "adapter/discriminator"} <= moved


def test_a_dry_run_draws_nothing(run_of, tmp_path):
    run_of(tmp_path / "run", adversarial=ADVERSARIAL, dry_run=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adversarial": {"weight": -1}}, "adversarial.weight: found -1"),
        ({"adversarial": {"share": 0}}, "adversarial.share: found 0"),
        ({"adversarial": {"share": 1}}, "adversarial.share: found 1"),
        ({"adversarial": {"rate": 0}}, "adversarial.rate: found 0"),
        ({"adversarial": {"wieght": 1}}, r"unknown setting 'adversarial.wieght' \(did you mean 'adversarial.weight'"),
        ({"adversarial": ADVERSARIAL, "optimizer": {"name": "prodigy"}}, "'prodigy' finds one rate"),
        ({"adversarial": ADVERSARIAL, "loss": {"sizes": (4,)}, "crop": 8}, "crop: found 8; .* at least 16"),
        (
            {"adversarial": ADVERSARIAL, "redrawn": {"share": 0.0}},
            "redrawn.share: found 0, which takes none of 10 clips",
        ),
        ({"adversarial": ADVERSARIAL, "redrawn": {"low": 0.1, "steps": 3}}, "low 0.1 of 3 steps leaves none"),
        ({"adversarial": ADVERSARIAL, "redrawn": {"sampler": "eular"}}, "unknown sampler 'eular'"),
    ],
)
def test_settings_that_cannot_be_are_one_line(run_of, tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        run_of(tmp_path / "run", **changes)
    assert "\n" not in str(caught.value)
