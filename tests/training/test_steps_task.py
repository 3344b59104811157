"""The step adapter: what its examples are, what it leaves behind, exact resumes, and what is refused."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdxl_mel.commands import parse_command
from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.diffusion.trajectories import Grid, parts_of, walk
from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.files.run_header import read_run
from sdxl_mel.files.trajectories import open_trajectories
from sdxl_mel.models.lora.file import Lora, LoraHeader, read_lora, write_lora
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.stages import train
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.training.jumps import JumpData, Jumps
from sdxl_mel.training.step_objectives import Consistency, Segments, Unrolled
from sdxl_mel.training.steps_settings import Config
from tests.caches import draw_trajectories

SMALL = {
    "steps": 4,
    "batch": 3,
    "save_every": 2,
    "draw_steps": (2,),
    "trackers": (),
    "adapter": {"rank": 2, "targets": ("attention", "conv_in")},
    "optimizer": {"rate": 1e-2},
    "validation": {"every": 2, "clips": 1},
}


@pytest.fixture
def settings(slim_sdxl, six_trajectories, tmp_path):
    return SMALL | {"base": str(slim_sdxl), "trajectories": six_trajectories, "out": tmp_path / "run"}


def _run(settings, **changes):
    return train.run(Config.model_validate({**settings, **changes}))


def _bytes(folder: Path) -> bytes:
    return (folder / "lora.safetensors").read_bytes()


def _data(folder: Path) -> JumpData:
    source = open_trajectories(folder)
    return JumpData(source, source.header.trajectories, draw_steps=(2,), batch=8, seed=0)


def _timesteps(batches: Iterable[Sequence[Jumps]]) -> set[tuple[int, int]]:
    every = [jumps for batch in batches for jumps in batch]
    return {(int(a), int(b)) for each in every for a, b in zip(each.timesteps, each.end_timesteps)}


def test_a_run_leaves_an_adapter_that_says_how_it_is_drawn(settings, slim_sdxl):
    report = _run(settings)
    assert "the step adapter is in" in report.summary()
    out = settings["out"]
    ours, theirs = read_lora(out / "lora.safetensors"), read_lora(out / "diffusers")
    assert len(ours.modules) == len(theirs.modules) == 7 * 8 + 1
    for lora in (ours, theirs):
        assert lora.header.drawing == Drawing("ddim", 2, 1.0, "trailing")
        assert lora.header.spec == read_run(out).spec
        assert set(lora.header.base) == {"unet", "text_encoder", "text_encoder_2"}
    assert 'task = "steps"' in (out / "config.toml").read_text()
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [len(row["validation/held out"]) for row in rows if "validation/held out" in row] == [2, 2, 2]
    words = ["--config", str(out / "config.toml"), "--resume"]
    assert parse_command("train", words).model_dump(exclude={"resume"}) == Config.model_validate(settings).model_dump(
        exclude={"resume"}
    )
    card = (out / "README.md").read_text()
    assert "draws in 2 steps without guidance what it draws at guidance 3" in card
    drawn = Generator.open(str(slim_sdxl), loras=[out / "lora.safetensors"]).settle()
    assert (drawn.sampling.sampler, drawn.sampling.steps, drawn.sampling.guidance) == ("ddim", 2, 1.0)
    assert drawn.notes == ()


def test_a_teacher_without_guidance_is_its_own_student(slim_sdxl, small_cache, tmp_path):
    """Every point of the grid is a step, and the adapter changes nothing yet: each step lands where the teacher was."""
    draw_trajectories(slim_sdxl, small_cache, tmp_path / "t", "--count", "4", guidance=1.0)
    settings = SMALL | {"base": str(slim_sdxl), "trajectories": tmp_path / "t", "out": tmp_path / "run"}
    results = _run(settings, steps=1, draw_steps=(4,), optimizer={"rate": 1e-12}).results
    assert results["squared error of where a step lands, held out"][0] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("objective", ["segments", "unrolled", "consistency"])
def test_training_makes_the_error_smaller(settings, objective):
    results = _run(settings, steps=30, objective=objective, validation={"every": 30, "clips": 1}).results
    before, after = results["squared error of where a step lands, trained"]
    assert after < before


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("learnt", [{"rollouts": 0.5}, {"objective": "unrolled"}])
def test_killed_and_resumed_is_bit_for_bit_the_run_that_was_not(learnt, settings, tmp_path, monkeypatch):
    from sdxl_mel.training.loop import Loop

    settings |= {"draw_steps": (2, 4), "averages": {"lengths": (0.1,)}} | learnt
    _run(settings)
    whole = _bytes(settings["out"])
    settings["out"] = tmp_path / "killed"
    real = Loop.step

    def dies(loop, *rest):
        if loop.state.step == 3:
            raise _Killed
        return real(loop, *rest)

    with monkeypatch.context() as patched, pytest.raises(_Killed):
        patched.setattr(Loop, "step", dies)
        _run(settings)
    _run(settings, resume=True)
    assert _bytes(settings["out"]) == whole


@pytest.mark.parametrize("kind", [lambda data: Segments(data, 0.75, 0.5, "noise"), Unrolled, Consistency])
def test_a_batch_is_the_same_in_pieces(kind, six_trajectories):
    objective = kind(_data(six_trajectories))
    whole, *parts = (objective.batch(3, piece) for piece in (range(8), range(3), range(3, 8)))
    for one, *pieces in zip(whole, *parts):
        for name in ("start", "end", "timesteps", "segments"):
            assert torch.equal(getattr(one, name), torch.cat([getattr(piece, name) for piece in pieces])), name


def test_starts_are_spread_evenly_and_jumps_stay_in_their_segment(six_trajectories):
    data = _data(six_trajectories)
    starts, within = (Segments(data, share, 0.0, "noise") for share in (1.0, 0.0))
    batches = [starts.batch(step, range(8)) for step in range(20)]
    assert all(jumps.segments.bincount().tolist() == [4, 4] for (jumps,) in batches)
    assert _timesteps(batches) == {(999, 499), (499, 0)}
    batches = [within.batch(step, range(8)) for step in range(20)]
    assert _timesteps(batches) == {(999, 499), (749, 499), (499, 0), (249, 0)}


def test_a_landing_is_measured_in_units_of_the_signal_there(six_trajectories):
    segments = Segments(_data(six_trajectories), 0.5, 0.0, "landing")
    ((jumps,), prediction) = segments.batch(0, range(8)), segments.data.prediction
    (landed,) = segments.landed([jumps], lambda latents, timesteps, text: latents * 0.3)
    missed = parts_of(jumps.start, jumps.start * 0.3, jumps.at, prediction).at(jumps.to) - jumps.end
    minimised = (landed.found - landed.wanted) * landed.weight
    torch.testing.assert_close(minimised.abs(), (missed / jumps.to.signal).abs(), atol=1e-4, rtol=1e-3)


def test_rolled_examples_start_where_the_adapter_got_to(settings, six_trajectories):
    """Half of the starts have steps before them. The error that is minimised is then that of the whole drawing."""
    objective = Segments(_data(six_trajectories), 1.0, 1.0, "noise")
    for (jumps,) in (objective.batch(step, range(8)) for step in range(5)):
        assert torch.equal(jumps.rolled, jumps.first > 0)
        assert int(jumps.rolled.sum()) == 4
    before, after = _run(settings, steps=30, rollouts=1.0, validation={"every": 30, "clips": 1}).results[
        "squared error of where a step lands, trained"
    ]
    assert after < before


def test_an_unrolled_drawing_is_a_walk_and_its_gradient_passes_through_every_step(six_trajectories):
    data = _data(six_trajectories)
    batch = Unrolled(data).batch(0, range(3))
    grid = Grid(data.grid.timesteps[::2], data.grid.alphas[::2])

    def ends(scale: torch.Tensor) -> list[torch.Tensor]:
        landed = Unrolled(data).landed(batch, lambda latents, timesteps, text: (latents * scale).sin())
        return [each.found for each in landed]

    scale = torch.tensor(0.3, requires_grad=True)
    expected = walk(batch[0].start, grid, data.prediction, lambda latents, timestep: (latents * 0.3).sin())
    for found, wanted in zip(ends(scale), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    ends(scale)[-1].mean().backward()
    more, less = (ends(torch.tensor(0.3 + change))[-1].double().mean() for change in (1e-2, -1e-2))
    assert scale.grad.item() == pytest.approx(float(more - less) / 2e-2, rel=1e-2)


@pytest.mark.parametrize("drawn", [{"objective": "unrolled"}, {"rollouts": 1.0}])
def test_a_teacher_without_guidance_draws_its_own_way(drawn, slim_sdxl, small_cache, tmp_path):
    """The adapter changes nothing yet: where it gets to from the noise is where the teacher was."""
    draw_trajectories(slim_sdxl, small_cache, tmp_path / "t", "--count", "4", guidance=1.0)
    settings = SMALL | {"base": str(slim_sdxl), "trajectories": tmp_path / "t", "out": tmp_path / "run", "steps": 1}
    _run(settings, draw_steps=(4,), batch=4, optimizer={"rate": 1e-12}, validation={"every": 0}, **drawn)
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert row["squared_error"] == pytest.approx(0, abs=1e-5)


def test_a_consistency_model_steps_to_the_next_point(six_trajectories):
    objective = Consistency(_data(six_trajectories))
    batches = [objective.batch(step, range(8)) for step in range(20)]
    assert _timesteps(batches) == {(999, 749), (749, 499), (499, 249), (249, 0)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"draw_steps": (3,)}, "3 steps: no divisor of the 4 of the trajectories; give one of 1, 2"),
        ({"steps": 0}, "steps: found 0"),
        ({"draw_steps": (0,)}, "draw_steps.0: found 0"),
        ({"objective": "consistency", "loss": {"measured": "landing"}}, "is for segments and unrolled"),
        ({"objective": "unrolled", "rollouts": 0.5}, "rollouts need the objective 'segments'"),
        ({"base": "mini"}, "base mini and .* were made with different specs"),
        ({"task": "lora"}, "these are the settings of 'steps'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings, changes, said):
    from sdxl_mel.config import validated

    with pytest.raises(InputError, match=said) as caught:
        train.run(validated(Config, settings | changes, "train"))
    assert "\n" not in str(caught.value)


def test_trajectories_of_another_teacher_are_refused(settings, tiny_sdxl, tiny_sd15, tmp_path):
    with pytest.raises(MismatchError, match="drawn by another teacher than .*: its .*unet differ"):
        _run(settings, base=str(tiny_sdxl))
    with pytest.raises(MismatchError, match="its .*text_encoder_2.* differ; give the base that drew them"):
        _run(settings, base=str(tiny_sd15))
    lora = write_style_lora(tmp_path / "style.safetensors")
    with pytest.raises(MismatchError, match="drawn with 0 LoRAs, found 1"):
        _run(settings, lora=(str(lora),))


def write_style_lora(path: Path) -> Path:
    """Write a LoRA of the slim SDXL that changes one layer of its UNet and one of a text encoder."""
    module = LoraModule(torch.full((1, 4, 3, 3), 0.1), torch.full((32, 1, 1, 1), 0.1), 1.0)
    words = LoraModule(torch.full((1, 32), 0.1), torch.full((32, 1), 0.1), 1.0)
    read = ("text_encoder", "text_model.encoder.layers.0.self_attn.q_proj")
    write_lora(path, Lora({("unet", "conv_in"): module, read: words}, LoraHeader()))
    return path


def test_an_adapter_on_a_style_lora_learns_from_both(slim_sdxl, small_cache, tmp_path):
    """It is trained on the base with the LoRA in its weights, holds the adapter alone, and is drawn with both."""
    style = write_style_lora(tmp_path / "style.safetensors")
    draw_trajectories(slim_sdxl, small_cache, tmp_path / "t", "--count", "4", "--lora", f"{style}:0.5")
    settings = SMALL | {"base": str(slim_sdxl), "trajectories": tmp_path / "t", "out": tmp_path / "run", "steps": 1}
    with pytest.raises(MismatchError, match="as sdxl-mel trajectories had it"):
        _run(settings, lora=(str(style),))
    _run(settings, lora=(f"{style}:0.5",))
    assert "lora 1" in read_run(tmp_path / "run").record.inputs
    generator = Generator.open(str(slim_sdxl), loras=[f"{style}:0.5", tmp_path / "run" / "lora.safetensors"])
    assert generator.settle().sampling.steps == 2


def test_an_adapter_to_start_from(settings, tmp_path):
    _run(settings)
    first = settings["out"] / "lora.safetensors"
    adapter = SMALL["adapter"] | {"init": first}
    _run(settings, out=tmp_path / "on", steps=1, draw_steps=(4,), adapter=adapter, optimizer={"rate": 1e-12})
    old, new = read_lora(first), read_lora(tmp_path / "on" / "lora.safetensors")
    assert new.header.drawing.steps == 4
    for key, module in old.modules.items():
        assert torch.allclose(module.up, new.modules[key].up, atol=1e-9)


def test_damaged_rows_are_not_trained_on(settings, six_trajectories, tmp_path):
    copy = shutil.copytree(six_trajectories, tmp_path / "copy")
    shard = next((copy / "trajectories").glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    length = sum(tensor.numel() * 4 for tensor in load_file(shard).values())
    content[-length:] = b"\xff" * length
    shard.write_bytes(content)
    with pytest.raises(InputError, match="is no trajectory of this spec; run sdxl-mel trajectories again"):
        _run(settings, trajectories=copy)
