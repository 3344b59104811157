"""Trajectories: the teacher's own way, kept in shards that are addressed by content, resumed and refused."""

import shutil

import pytest
import torch

from sdxl_mel.commands import run_command
from sdxl_mel.diffusion.samplers import Sampling
from sdxl_mel.diffusion.sampling import draw_noise
from sdxl_mel.errors import FormatError, InputError, MismatchError
from sdxl_mel.files.trajectories import open_trajectories
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Job, TimedText
from sdxl_mel.synthesis.layout import lay_out
from sdxl_mel.synthesis.settings import Length
from tests.caches import draw_trajectories


def test_a_trajectory_ends_where_the_teacher_draws(six_trajectories, slim_sdxl):
    """1000 is a multiple of 4, so that diffusers' DDIM walks the same grid."""
    made = open_trajectories(six_trajectories)
    one = made.header.trajectories[2]
    teacher = Generator.open(str(slim_sdxl), preset=made.header.spec)
    job = Job(1, one.prompt, (TimedText(0.0, one.prompt),), negative="", seed=one.seed)
    sampling = Sampling("ddim", 4, 3.0, "trailing")
    expected = teacher.drawer([job], sampling, lay_out(Length(), teacher.spec)).latents([job], [one.seed])[0]
    noise, end = made.states(one, (0, 4))
    assert torch.allclose(end, expected, atol=2e-4)
    assert torch.equal(noise, draw_noise([one.seed], noise.shape, "cpu")[0])
    assert made.header.timesteps == (999, 749, 499, 249)


def test_more_of_them_keep_those_that_are_there(six_trajectories, slim_sdxl, small_cache, tmp_path):
    copy = shutil.copytree(six_trajectories, tmp_path / "copy")
    assert draw_trajectories(slim_sdxl, small_cache, copy, "--count", "6").drawn == 0
    before = {each.key: each for each in open_trajectories(copy).header.trajectories}
    assert draw_trajectories(slim_sdxl, small_cache, copy, "--count", "8").drawn == 2
    after = {each.key: each for each in open_trajectories(copy).header.trajectories}
    assert before.items() <= after.items()
    assert len({each.seed for each in after.values()}) == 8


@pytest.mark.parametrize(("words", "first_too"), [(["--sampler", "dpmpp_2m"], False), (["--first", "961"], True)])
def test_another_course_makes_other_trajectories_of_the_same_points(
    words, first_too, six_trajectories, slim_sdxl, small_cache, tmp_path
):
    """The first step of a second-order sampler is of first order."""
    copy = shutil.copytree(six_trajectories, tmp_path / "copy")
    assert draw_trajectories(slim_sdxl, small_cache, copy, "--count", "2", *words).drawn == 2
    before, after = (open_trajectories(folder) for folder in (six_trajectories, copy))
    assert before.header.grid == after.header.grid
    (noise, first, end), (own, moved, other) = (
        made.states(made.header.trajectories[0], (0, 1, 4)) for made in (before, after)
    )
    assert torch.equal(noise, own)
    assert torch.allclose(first, moved, atol=1e-3) is not first_too
    assert not torch.allclose(end, other)


def test_the_same_command_makes_the_same_bytes(six_trajectories, slim_sdxl, small_cache, tmp_path):
    draw_trajectories(slim_sdxl, small_cache, tmp_path / "again", "--count", "6")
    for path in six_trajectories.glob("**/*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(six_trajectories)).read_bytes(), path.name


def test_a_damaged_shard_is_said_and_made_anew(six_trajectories, slim_sdxl, small_cache, tmp_path):
    copy = shutil.copytree(six_trajectories, tmp_path / "copy")
    shard = next((copy / "trajectories").glob("*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(FormatError, match="damaged or truncated shard .*run sdxl-mel trajectories again") as caught:
        open_trajectories(copy)
    assert "\n" not in str(caught.value)
    assert draw_trajectories(slim_sdxl, small_cache, copy, "--count", "6").damaged == 1
    assert shard.read_bytes() == whole


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "1"], "steps: found '1'"),
        (["--prompts", "p.txt"], "give one of --cache and --prompts"),
        (["--count", "1"], "count: found '1'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words, said):
    with pytest.raises(InputError, match=said) as caught:
        run_command("trajectories", ["--base", "b", "--cache", "c", "--out", "o", *words])
    assert "\n" not in str(caught.value)


def test_another_spec_is_refused(small_cache, tmp_path):
    with pytest.raises(MismatchError, match="--base mini.*n_mels"):
        draw_trajectories("mini", small_cache, tmp_path / "out", "--count", "2")
