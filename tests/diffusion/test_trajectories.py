"""Trajectories: exact on what diffusers' DDIM walks, and jumps that land where they are told."""

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from sdxl_mel.diffusion.sampling import sample
from sdxl_mel.diffusion.trajectories import (
    Grid,
    beginning_at,
    joining,
    parts_of,
    predicted_of,
    reach,
    trailing_grid,
    walk,
)
from sdxl_mel.errors import InputError

SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SHAPE = (2, 4, 4, 8)
KINDS = pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])


def base(prediction: str = "epsilon") -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(**SDXL, prediction_type=prediction)


def noise(*key: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.manual_seed(sum(key)))


@KINDS
@pytest.mark.parametrize("steps", [4, 8, 25])
def test_a_walk_is_ddim_of_diffusers(prediction: str, steps: int) -> None:
    """For numbers of steps that divide 1000; for others diffusers ends each step beside the next one's timestep."""
    scheduler = DDIMScheduler(**SDXL, prediction_type=prediction, clip_sample=False)
    scheduler = DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")
    expected = sample(scheduler, steps, noise(0), lambda x, t, _: (x * 0.3).sin(), seeds=[0, 1])
    grid = trailing_grid(base(prediction), steps)
    *_, last = walk(noise(0), grid, prediction, lambda x, t: (x * 0.3).sin())
    torch.testing.assert_close(last, expected, atol=1e-4, rtol=1e-4)
    assert grid.timesteps == tuple(scheduler.timesteps.tolist())


@pytest.mark.parametrize(("scheduler", "most"), [("simple", 1e-4), ("sgm_uniform", 0.02), ("ddim_uniform", None)])
@pytest.mark.parametrize("steps", [2, 4, 8])
def test_comfyui_walks_the_same_way(steps: int, scheduler: str, most: float | None) -> None:
    """Its `euler`, and its `ddim`, which is the same, in its own noise levels: x = x_0 + sigma eps.

    From comfy/samplers.py and comfy/model_sampling.py: the timestep of a level is the nearest. `ddim_uniform` begins
    where a quarter of the signal is there already.
    """
    grid = trailing_grid(base(), steps)
    alphas = base().alphas_cumprod
    sigmas = ((1 - alphas) / alphas).sqrt()
    match scheduler:
        case "simple":
            places = [999.0 - int(step * 1000 / steps) for step in range(steps)]
        case "sgm_uniform":
            places = torch.linspace(999, 0, steps + 1)[:-1].tolist()
        case "ddim_uniform":
            places = [1.0 + step * (1000 // steps) for step in reversed(range(steps))]
    places = [*places]
    log = sigmas.log()
    levels = [float(torch.lerp(log[int(at)], log[min(int(at) + 1, 999)], at % 1).exp()) for at in places]
    latents = noise(0) * (1 + levels[0] ** 2) ** 0.5
    for at, here, after in zip(places, levels, [*levels[1:], 0.0]):
        predicted = predicted_at(latents / (1 + here**2) ** 0.5, torch.tensor(round(at)))
        latents = latents + predicted * (after - here)
    *_, expected = walk(noise(0), grid, "epsilon", predicted_at)
    apart = float((latents - expected).abs().max() / expected.abs().max())
    assert apart < most if most else apart > 0.1


def predicted_at(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """Return what depends on both, as a UNet does."""
    return (latents * 0.3 + timestep / 1000).sin()


@KINDS
@pytest.mark.parametrize("steps", [2, 4, 8, 20])
def test_a_walk_of_second_order_is_dpmpp_2m_of_diffusers(prediction: str, steps: int) -> None:
    config = base(prediction).config
    scheduler = DPMSolverMultistepScheduler.from_config(config, timestep_spacing="trailing", use_karras_sigmas=False)
    expected = sample(scheduler, steps, noise(0), lambda x, t, _: (x * 0.3).sin(), seeds=[0, 1])
    grid = trailing_grid(base(prediction), steps)
    *_, last = walk(noise(0), grid, prediction, lambda x, t: (x * 0.3).sin(), "dpmpp_2m")
    torch.testing.assert_close(last, expected, atol=1e-4, rtol=1e-4)
    assert grid.timesteps == tuple(scheduler.timesteps.tolist())


def test_a_walk_may_begin_at_another_timestep_than_that_of_pure_noise() -> None:
    grid = trailing_grid(base(), 8)
    moved = beginning_at(grid, 961, base())
    assert moved.timesteps == (961, 874, 749, 624, 499, 374, 249, 124)
    assert moved.alphas == (float(base().alphas_cumprod.double()[961]), *grid.alphas[1:])
    assert beginning_at(grid, None, base()) == grid
    with pytest.raises(InputError, match="--first 800: the second step is at timestep 874; give a larger one"):
        beginning_at(grid, 800, base())


def test_after_a_point_without_signal_the_step_is_of_first_order() -> None:
    assert Grid((999, 499), (0.0, 0.3, 0.9, 1.0)).ratio(1) == 0


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6, 8, 12, 24])
def test_the_timesteps_of_fewer_steps_lie_on_the_grid(steps: int) -> None:
    grid = trailing_grid(base(), 24)
    starts = torch.arange(0, 24, grid.segment(steps))
    assert trailing_grid(base(), steps).timesteps == tuple(grid.timesteps[point] for point in starts)
    assert grid.ends(starts, steps).tolist() == [*starts[1:].tolist(), 24]
    assert int(grid.ends(torch.tensor([23]), steps)) == 24


def test_a_number_that_does_not_divide_the_grid_is_refused() -> None:
    with pytest.raises(InputError, match="5 steps: no divisor of the 24 of the trajectories; give one of 1, 2, 3, 4"):
        trailing_grid(base(), 24).segment(5)


@KINDS
def test_a_jump_lands_where_it_is_told(prediction: str) -> None:
    grid = trailing_grid(base(prediction), 24)
    start, end = noise(1), noise(2)
    at, to = grid.level(torch.tensor([0, 6])), grid.level(torch.tensor([6, 24]))
    wanted = predicted_of(joining(start, at, end, to), at, prediction)
    torch.testing.assert_close(parts_of(start, wanted, at, prediction).at(to), end, atol=1e-4, rtol=1e-3)
    missed = parts_of(start, wanted + 0.01, at, prediction).at(to) - end
    torch.testing.assert_close(missed.abs(), (0.01 * reach(at, to, prediction)).expand(SHAPE), atol=1e-4, rtol=1e-2)


@KINDS
def test_parts_and_predictions_are_inverse(prediction: str) -> None:
    level = trailing_grid(base(prediction), 24).level(torch.tensor([3, 20]))
    latents, predicted = noise(3), noise(4)
    parts = parts_of(latents, predicted, level, prediction)
    torch.testing.assert_close(predicted_of(parts, level, prediction), predicted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(parts.at(level), latents, atol=1e-5, rtol=1e-5)


def test_with_zero_terminal_snr_a_jump_begins_at_pure_noise() -> None:
    """Where nothing of the signal is left, v still says it; epsilon could not."""
    grid = Grid((999, 499), (0.0, 0.3, 1.0))
    start, end = noise(5), noise(6)
    at, to = grid.level(torch.tensor([0, 0])), grid.level(torch.tensor([2, 2]))
    wanted = predicted_of(joining(start, at, end, to), at, "v_prediction")
    torch.testing.assert_close(parts_of(start, wanted, at, "v_prediction").at(to), end)
