"""Few-step models: the timesteps their cards ask for, and who decides how a picture is drawn."""

import diffusers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.diffusion.samplers import (
    SAMPLER_PRESETS,
    Drawing,
    SamplerPreset,
    Sampling,
    format_timesteps,
    parse_timesteps,
    settle,
)
from sdxl_mel.diffusion.sampling import Guidance, make_scheduler, set_steps
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.models.lora.header import LoraHeader, from_metadata, to_metadata

SDXL = diffusers.EulerDiscreteScheduler(
    beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="leading", steps_offset=1
)
"""The scheduler of SDXL 1.0."""
CARDS = {
    "turbo": diffusers.EulerAncestralDiscreteScheduler.from_config(SDXL.config, timestep_spacing="trailing"),
    "lightning": diffusers.EulerDiscreteScheduler.from_config(SDXL.config, timestep_spacing="trailing"),
    "hyper": diffusers.DDIMScheduler.from_config(SDXL.config, timestep_spacing="trailing"),
    "lcm": diffusers.LCMScheduler.from_config(SDXL.config),
}
"""The schedulers as the models' cards make them."""


def walk(sampling: Sampling, base: object = SDXL) -> list[float]:
    scheduler = make_scheduler(sampling.sampler, base, sampling.timesteps)
    return set_steps(scheduler, sampling.steps, "cpu", timesteps=sampling.timesteps).tolist()


@pytest.mark.parametrize("preset", SAMPLER_PRESETS)
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_a_preset_walks_as_the_card_of_its_kind(preset: SamplerPreset, steps: int) -> None:
    sampling = settle(Drawing(steps=steps), preset, []).sampling
    theirs = CARDS[preset]
    theirs.set_timesteps(steps)
    assert walk(sampling) == theirs.timesteps.tolist()
    assert type(make_scheduler(sampling.sampler, SDXL)) is type(theirs)
    assert not Guidance(sampling.guidance).acts_at(500)


def test_lightning_begins_at_pure_noise_and_sdxl_does_not() -> None:
    assert walk(Sampling("euler", 4)) == [751, 501, 251, 1]
    assert walk(settle(Drawing(), "lightning", []).sampling) == [999, 749, 499, 249]


def test_the_spacing_of_the_base_is_kept_by_every_sampler() -> None:
    turbo = CARDS["turbo"]
    assert walk(Sampling("euler", 4), turbo) == [999, 749, 499, 249]
    assert walk(Sampling("ddim", 4), turbo) == [999, 749, 499, 249]
    assert walk(Sampling("euler", 4, timesteps="leading"), turbo) == [751, 501, 251, 1]


@pytest.mark.parametrize("sampler", ["euler", "ddpm", "lcm", "tcd"])
def test_timesteps_given_one_by_one_are_walked(sampler: str) -> None:
    assert walk(Sampling(sampler, 3, timesteps=(999, 499, 259))) == [999, 499, 259]
    scheduler = make_scheduler(sampler, SDXL)
    assert set_steps(scheduler, 3, "cpu", strength=0.67, timesteps=(999, 499, 259)).tolist() == [499, 259]


def test_a_sampler_without_given_timesteps_says_so() -> None:
    with pytest.raises(InputError, match="--timesteps: DDIMScheduler takes no single timesteps; give trailing"):
        walk(Sampling("ddim", 2, timesteps=(999, 499)))
    with pytest.raises(InputError, match="--timesteps: LCMScheduler cannot do"):
        set_steps(make_scheduler("lcm", SDXL), 2, "cpu", timesteps=(499, 999))


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_no_guidance_is_written_as_0_or_1(scale: float) -> None:
    assert not Guidance(scale).acts_at(500)
    assert Guidance(0.5).acts_at(500)


def test_flags_win_over_the_preset_it_over_loras_they_over_the_base() -> None:
    lightning, ours = Drawing("euler", 8, 1.0, (999, 899, 799, 699, 599, 499, 399, 299)), Drawing(guidance=3.5)
    asked = [("lightning.safetensors", lightning), ("ours.safetensors", ours), ("base", Drawing("ddim", 50, 7.0))]
    assert settle(Drawing(), None, []) == (Sampling(), ())
    assert settle(Drawing(), None, asked[1:]).sampling == Sampling("ddim", 50, 3.5)
    assert settle(Drawing(), None, asked).sampling == Sampling("euler", 8, 1.0, lightning.timesteps)
    preset = settle(Drawing(), "lcm", [asked[1]])
    assert preset == (Sampling("lcm", 4, 1.0), ())
    stated = settle(Drawing(steps=8, guidance=1.5), "lcm", [asked[1]])
    assert stated.sampling == Sampling("lcm", 8, 1.5)
    assert stated.notes == (
        "--steps 8 instead of 4, for which --sampler-preset lcm asks",
        "--guidance 1.5 instead of 1, for which --sampler-preset lcm asks",
        "--guidance 1.5 instead of 3.5, for which ours.safetensors asks",
    )


def test_another_number_of_steps_than_a_model_names_lies_trailing() -> None:
    asked = [("lightning.safetensors", Drawing("euler", None, 1.0, (999, 749, 499, 249)))]
    assert settle(Drawing(), None, asked).sampling.steps == 4
    assert walk(settle(Drawing(steps=2), None, asked).sampling) == [999, 499]
    with pytest.raises(InputError, match="--steps 3: --timesteps names 2; leave --steps out"):
        settle(Drawing(steps=3, timesteps=(999, 499)), None, [])


falling = st.sets(st.integers(0, 999), min_size=1).map(lambda found: tuple(sorted(found, reverse=True)))


@given(st.one_of(falling, st.sampled_from(["leading", "linspace", "trailing"])))
def test_timesteps_are_written_and_read(timesteps: tuple[int, ...] | str) -> None:
    assert parse_timesteps(format_timesteps(timesteps), "x") == timesteps


@pytest.mark.parametrize("text", ["trialing", "", "1,2", "999,999", "1000,1", "-1", "9.5"])
def test_other_timesteps_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--timesteps: found"):
        parse_timesteps(text, "--timesteps")


def test_a_header_says_how_its_model_is_drawn_only_if_it_knows() -> None:
    header = LoraHeader(drawing=Drawing("euler", 4, 1.0, (999, 749, 499, 249)))
    pairs = to_metadata(header)
    assert pairs["sdxl_mel.timesteps"] == "999,749,499,249"
    assert from_metadata(pairs, "x") == header
    assert not {"sdxl_mel.sampler", "sdxl_mel.steps", "sdxl_mel.timesteps"} & set(to_metadata(LoraHeader()))
    for name, value in (("steps", "four"), ("timesteps", "fast")):
        with pytest.raises((FormatError, InputError), match="x: "):
            from_metadata({f"sdxl_mel.{name}": value}, "x")
