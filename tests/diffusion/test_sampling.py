"""Our sampling loop beside the plain diffusers pipeline, and each tile beside itself in a batch."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from sdxl_mel.diffusion.conditioning import TextEmbeddings, time_ids
from sdxl_mel.diffusion.samplers import SAMPLERS
from sdxl_mel.diffusion.sampling import (
    Denoiser,
    Guidance,
    Known,
    draw_noise,
    make_scheduler,
    rescaled,
    sample,
    set_steps,
)
from sdxl_mel.errors import InputError
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.text_encoding import encode_prompts

SIZE = (16, 16)
"""Height and width of the latents."""


@pytest.fixture(scope="module")
def base(slim_sdxl: Path) -> Base:
    return open_base(slim_sdxl)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def denoiser(base: Base, guidance: Guidance) -> Denoiser:
    return Denoiser(base.unet, time_ids(SIZE[0] * 8, SIZE[1] * 8), encode_prompts(base, [""]), guidance)


def draw(
    base: Base, prompts: list[str], seeds: list[int], *, sampler: str = "euler", steps: int = 3, **options
) -> torch.Tensor:
    guidance = options.pop("guidance", Guidance(4.0))
    text, told = encode_prompts(base, prompts), denoiser(base, guidance)
    scheduler = make_scheduler(sampler, base.scheduler)
    noise = draw_noise(seeds, (4, *SIZE), "cpu")
    return sample(scheduler, steps, noise, lambda x, t, _: told.predict(x, t, text), seeds=seeds, **options)


@pytest.mark.parametrize(
    ("sampler", "guidance"),
    [
        ("euler", Guidance(4.0)),
        ("ddim", Guidance(4.0, rescale=0.7)),
        ("dpmpp_2m", Guidance(7.5)),
        ("heun", Guidance(1.0)),
        ("unipc", Guidance(2.0)),
    ],
)
def test_same_latents_as_the_plain_pipeline(base: Base, slim_sdxl: Path, sampler: str, guidance: Guidance) -> None:
    ours = draw(base, ["slow piano"], [7], sampler=sampler, guidance=guidance)
    pipeline = StableDiffusionXLPipeline.from_pretrained(slim_sdxl)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler(sampler, base.scheduler)
    theirs = pipeline(
        prompt="slow piano",
        negative_prompt="",
        height=SIZE[0] * 8,
        width=SIZE[1] * 8,
        num_inference_steps=3,
        guidance_scale=guidance.scale,
        guidance_rescale=guidance.rescale,
        latents=draw_noise([7], (4, *SIZE), "cpu"),
        output_type="latent",
    ).images
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", ["euler", "euler_a", "ddpm"])
def test_a_tile_depends_on_its_seed_and_not_on_its_batch(base: Base, sampler: str) -> None:
    together = draw(base, ["one", "two", "three", "four"], [3, 4, 5, 6], sampler=sampler)
    alone = draw(base, ["three"], [5], sampler=sampler)
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-4)
    other = draw(base, ["three"], [6], sampler=sampler)
    assert (other - alone).abs().max() > 0.1


def test_rescale_gives_the_spread_of_the_conditional_prediction() -> None:
    guided, given = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    full = rescaled(guided * 5, given, 1.0)
    torch.testing.assert_close(full.std(dim=(1, 2, 3)), given.std(dim=(1, 2, 3)))
    torch.testing.assert_close(rescaled(guided, given, 0.0), guided)


def test_guidance_one_asks_the_model_once(base: Base) -> None:
    calls = []
    told = denoiser(base, Guidance(1.0))
    handle = base.unet.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    told.predict(torch.zeros(2, 4, *SIZE), torch.tensor(500), encode_prompts(base, ["a", "b"]))
    denoiser(base, Guidance(3.0)).predict(torch.zeros(2, 4, *SIZE), torch.tensor(500), encode_prompts(base, ["a", "b"]))
    handle.remove()
    assert calls == [2, 4]


@pytest.mark.parametrize(("timestep", "guided"), [(0, False), (299, False), (300, True), (799, True), (800, False)])
def test_only_the_guided_timesteps_ask_twice(base: Base, timestep: int, guided: bool) -> None:
    text = encode_prompts(base, ["a"])
    latents = torch.ones(1, 4, *SIZE)
    found = denoiser(base, Guidance(3.0, start=300, end=800)).predict(latents, torch.tensor(timestep), text)
    whole = denoiser(base, Guidance(3.0 if guided else 1.0)).predict(latents, torch.tensor(timestep), text)
    torch.testing.assert_close(found, whole)


@pytest.mark.parametrize("sampler", ["euler", "ddim", "dpmpp_2m"])
def test_inpainting_keeps_what_is_known(base: Base, sampler: str) -> None:
    latents = torch.randn(1, 4, *SIZE, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 1, 1, SIZE[1])
    mask[..., 6:10] = 1
    drawn = draw(base, ["a"], [2], sampler=sampler, known=Known(latents, mask))
    torch.testing.assert_close(drawn[..., :6], latents[..., :6])
    torch.testing.assert_close(drawn[..., 10:], latents[..., 10:])
    assert (drawn[..., 6:10] - latents[..., 6:10]).abs().max() > 0.1


def test_a_variation_is_nearer_the_weaker_it_is(base: Base) -> None:
    latents = torch.randn(1, 4, *SIZE, generator=torch.Generator().manual_seed(1))
    distance = []
    for strength in (0.1, 0.5, 1.0):
        known = Known(latents, torch.full((1, 1, 1, 1), strength))
        distance.append(float((draw(base, ["a"], [2], steps=10, known=known) - latents).std()))
    assert distance[0] < distance[1] < distance[2]


def test_every_latent_goes_as_far_as_its_own_strength(base: Base) -> None:
    latents = torch.randn(1, 4, *SIZE, generator=torch.Generator().manual_seed(1))
    strength = torch.tensor([0.0, 0.3, 0.6, 1.0]).repeat_interleave(4).reshape(1, 1, 1, 16)
    drawn = draw(base, ["a"], [2], steps=10, known=Known(latents, strength))
    assert torch.equal(drawn[..., :4], latents[..., :4])
    distance = (drawn - latents).square().mean(dim=(0, 1, 2)).reshape(4, 4).mean(dim=1).tolist()
    assert distance == sorted(distance)
    assert distance[1] > 0


@pytest.fixture(scope="module")
def draw_mini() -> Callable[[str, int], torch.Tensor]:
    """Return what draws half a tile with the mini base, from the same noise by any sampler."""
    mini = open_base("mini")
    text, unconditional = encode_prompts(mini, ["solo piano, slow"]), encode_prompts(mini, [""])
    told = Denoiser(mini.unet, time_ids(SIZE[0] * 8, SIZE[1] * 8), unconditional, Guidance(1.0))

    @cache
    def drawn(sampler: str, steps: int) -> torch.Tensor:
        scheduler = make_scheduler(sampler, mini.scheduler, "trailing")
        noise = draw_noise([0], (4, *SIZE), "cpu")
        return sample(scheduler, steps, noise, lambda x, t, _: told.predict(x, t, text), seeds=[0])

    return drawn


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_what_many_fine_steps_draw(
    draw_mini: Callable[[str, int], torch.Tensor], sampler: str
) -> None:
    fine, drawn = draw_mini("dpmpp_2m", 40), draw_mini(sampler, 12)
    # Two pictures of different noise are 1.27 apart. Samplers that add noise go elsewhere, but to music as loud.
    adds_noise = sampler in ("euler_a", "ddpm", "lcm", "tcd")
    assert float((drawn - fine).norm() / fine.norm()) < (1.5 if adds_noise else 0.15)
    assert float(drawn.std() / fine.std()) == pytest.approx(1, abs=0.15)
    assert float(drawn.abs().max()) > 2


def test_latents_are_clipped_only_where_the_base_says_so(base: Base) -> None:
    for name in ("ddim", "ddpm", "heun", "lcm", "tcd"):
        assert not make_scheduler(name, base.scheduler).config.clip_sample
    saying = type(base.scheduler).from_config({**base.scheduler.config, "clip_sample": True})
    assert make_scheduler("ddim", saying).config.clip_sample
    assert not make_scheduler("ddim", diffusers.DDIMScheduler()).config.clip_sample


@pytest.mark.parametrize("name", [*SAMPLERS, "DPMSolverMultistepScheduler", "EulerDiscrete"])
def test_every_named_sampler_is_there(base: Base, name: str) -> None:
    scheduler = make_scheduler(name, base.scheduler)
    assert len(set_steps(scheduler, 4, "cpu")) >= 4
    assert scheduler.config.beta_end == base.scheduler.config.beta_end


def test_impossible_samplers_and_steps_are_refused(base: Base) -> None:
    with pytest.raises(InputError, match=r"unknown sampler 'eulr' \(did you mean 'euler'\?\)"):
        make_scheduler("eulr", base.scheduler)
    scheduler = make_scheduler("euler", base.scheduler)
    for steps in (0, -1):
        with pytest.raises(InputError, match="--steps"):
            set_steps(scheduler, steps, "cpu")
    with pytest.raises(InputError, match="--strength 0.01 of 10 steps leaves none"):
        set_steps(scheduler, 10, "cpu", strength=0.01)
    with pytest.raises(InputError, match="--steps"):
        set_steps(make_scheduler("ddim", base.scheduler), 2000, "cpu")


def test_unconditional_may_be_one_for_all(base: Base) -> None:
    one = denoiser(base, Guidance(3.0))
    text = encode_prompts(base, ["a", "b"])
    each = Denoiser(
        base.unet, one.time_ids, TextEmbeddings(*(t.expand(2, *t.shape[1:]) for t in one.unconditional)), one.guidance
    )
    latents = torch.ones(2, 4, *SIZE)
    torch.testing.assert_close(
        one.predict(latents, torch.tensor(9), text), each.predict(latents, torch.tensor(9), text)
    )
