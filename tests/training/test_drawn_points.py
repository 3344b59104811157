"""Points of trajectories among the examples of a cache: their share, what stands in a slot, whose they may be."""

import pytest
import torch

from sdxl_mel.config import validated
from sdxl_mel.errors import MismatchError
from sdxl_mel.files.run import read_metrics
from sdxl_mel.files.run_header import read_run
from sdxl_mel.files.trajectories import open_trajectories
from sdxl_mel.stages import train
from sdxl_mel.training.drawn_points import DrawnPoints, open_drawn_points
from sdxl_mel.training.tasks import TASKS

SMALLER = {
    "student": {"student": {"block_out_channels": (16, 32, 48)}},
    "small-decoder": {"decoder": {"block_out_channels": (4, 4, 8, 8)}},
}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_of_the_first_slots_exactly_their_share_is_theirs(six_trajectories, share):
    drawn = DrawnPoints(open_trajectories(six_trajectories), share, seed=0)
    found = [drawn.at(slot) for slot in range(20)]
    assert sum(each is not None for each in found) == 20 * share


def test_a_slot_has_a_point_of_its_trajectory_and_the_clean_end(six_trajectories):
    source = open_trajectories(six_trajectories)
    drawn = DrawnPoints(source, 1.0, seed=0)
    grid, seen = source.header.grid, set()
    for slot in range(24):
        trajectory = drawn.at(slot)
        state, timestep, text = drawn.noisy(slot, trajectory)
        point = grid.timesteps.index(timestep)
        assert torch.equal(state, source.states(trajectory, [point])[0])
        assert torch.equal(text.prompt_embeds, source.text(trajectory.text)[0])
        assert torch.equal(drawn.clean(trajectory), source.states(trajectory, [len(grid)])[0])
        seen.add(point)
    assert seen == set(range(len(grid)))


@pytest.mark.parametrize("task", SMALLER)
def test_tasks_learn_from_them_and_refuse_those_of_another_teacher(
    task, slim_sdxl, small_cache, six_trajectories, tmp_path
):
    settings = SMALLER[task] | {"task": task, "base": str(slim_sdxl), "cache": small_cache, "steps": 2, "batch": 2}
    settings |= {"trackers": (), "validation": {"every": 0}, "trajectories": six_trajectories}
    losses = {}
    for share in (0.0, 1.0):
        out = tmp_path / f"{share}"
        results = train.run(validated(TASKS[task].settings, settings | {"drawn": share, "out": out}, "test")).results
        assert results["steps"] == 2
        losses[share] = [row["loss"] for row in read_metrics(out)]
    assert losses[0.0] != losses[1.0]
    header = read_run(tmp_path / "1.0")
    assert "trajectories" in header.record.inputs
    other = header.model_copy(update={"identity": header.identity | {"unet": "other"}})
    with pytest.raises(MismatchError, match="drawn by another teacher: its unet differ"):
        open_drawn_points(six_trajectories, other, 0.5, 0)
    with pytest.raises(MismatchError, match="clip skip"):
        open_drawn_points(six_trajectories, header.model_copy(update={"clip_skip": 1}), 0.5, 0)
