"""The loop on a task of two numbers: it trains whatever answers a Task's questions, and knows nothing else."""

import ast
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from sdxl_mel.errors import InputError
from sdxl_mel.files.run import checkpoints, read_metrics
from sdxl_mel.seeding import torch_generator
from sdxl_mel.training import loop
from sdxl_mel.training.loop import train
from sdxl_mel.training.settings import AverageSettings, LoopSettings, OptimizerSettings, ValidationSettings
from sdxl_mel.training.state import saved_states
from sdxl_mel.training.task import HELD_OUT, Losses, Mean

SETTINGS = LoopSettings(
    steps=8,
    batch=6,
    save_every=3,
    optimizer=OptimizerSettings(rate=0.05, schedule="linear"),
    averages=AverageSettings(lengths=(0.1, 0.2), feedback_every=4, feedback_share=0.5),
    validation=ValidationSettings(every=4),
)


class Regression:
    """y = 2 x + 1 by least squares; `seen` counts the examples and is state that is no parameter."""

    judged_by = "squared error"
    judged = (HELD_OUT,)

    def __init__(self, at_step=None) -> None:
        self.line = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.line.weight)
        torch.nn.init.zeros_(self.line.bias)
        self.parameters = dict(self.line.named_parameters())
        self.extra_state = {"seen": torch.zeros(1)}
        self.at_step = at_step or {}

    def parameter_groups(self):
        return [{"params": list(self.parameters.values()), "lr": 0.05}]

    def batch(self, step, places):
        return torch.cat([torch.randn(1, 1, generator=torch_generator(0, "x", step, place)) for place in places])

    def losses(self, batch, step):
        self.at_step.get(step, lambda: None)()
        self.extra_state["seen"] += len(batch)
        error = (self.line(batch) - (2 * batch + 1)).flatten()
        return Losses(error.square(), ["x"] * len(batch), {"bias": Mean.of(error.detach())})

    @torch.no_grad()
    def validate(self, name):
        x = torch.linspace(-1, 1, 5)[:, None]
        return [float((self.line(x) - (2 * x + 1)).square().mean())]

    def remark(self, validation):
        return ""

    def save(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: each.detach().clone() for name, each in self.parameters.items()}, path)

    def save_result(self, folder: Path, step: int) -> None:
        self.save(folder / "line.safetensors", step)


def _train(out: Path, task=None, settings=SETTINGS, **more):
    task = task or Regression()
    return task, train(task, settings, out, Accelerator(cpu=True), **more)


def test_it_trains_validates_averages_and_saves(tmp_path, with_curves):
    task, results = _train(tmp_path)
    assert results["steps"] == 8
    first, last = results["squared error, held out"]
    assert last < first
    assert set(results["held-out loss of each"]) == {"last", "0.1", "0.2"}
    assert list(checkpoints(tmp_path)) == [3, 6, 8]
    assert sorted(path.name for path in (tmp_path / "averages").iterdir()) == ["0.1.safetensors", "0.2.safetensors"]
    assert float(task.extra_state["seen"]) == 8 * 6
    rows = [row for row in read_metrics(tmp_path) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert all(row["bias"] == pytest.approx(row["bias"]) and "rate" in row for row in rows)
    assert (tmp_path / "curves.png").exists()


def test_the_average_that_does_best_is_the_result(tmp_path):
    _, results = _train(tmp_path)
    best = results["average"]
    chosen = checkpoints(tmp_path)[8] if best == "last" else tmp_path / "averages" / f"{best}.safetensors"
    assert (tmp_path / "line.safetensors").read_bytes() == chosen.read_bytes()


class Unjudged(Regression):
    judged = ()


def test_averages_that_nothing_judges_have_no_losses_and_say_why(tmp_path):
    _, results = _train(tmp_path, Unjudged())
    assert "held-out loss of each" not in results
    assert results["average"].startswith("last; not compared: no clips are held out")
    assert (tmp_path / "line.safetensors").read_bytes() == checkpoints(tmp_path)[8].read_bytes()
    assert len(list((tmp_path / "averages").iterdir())) == 2


def test_what_was_judged_later_than_the_rest_has_one_loss(tmp_path):
    """A set of clips that was not there at the first validation has no first loss."""
    _train(tmp_path)
    task = Regression()
    task.judged = (HELD_OUT, "trained")
    _, results = _train(tmp_path, task, replace(SETTINGS, steps=9), resume=True, changed=True)
    assert isinstance(results["squared error, trained"], float)
    assert len(results["squared error, held out"]) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_resumed_run_is_bit_for_bit_the_whole_one(tmp_path, number):
    _train(tmp_path / "whole")
    told = Regression({4: lambda: os.kill(os.getpid(), number)})
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "cut", told)
    assert [path.name for path in saved_states(tmp_path / "cut")][-1] == "step-000006"
    _train(tmp_path / "cut", resume=True)
    for name in ("line.safetensors", "averages/0.1.safetensors", "state/step-000008/state.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    rows = [{**row, "seconds": 0} for row in read_metrics(tmp_path / "cut")]
    assert rows == [{**row, "seconds": 0} for row in read_metrics(tmp_path / "whole")]


def test_a_kill_resumes_from_the_last_state(tmp_path):
    class Killed(BaseException):
        pass

    def die():
        raise Killed

    _train(tmp_path / "whole")
    with pytest.raises(Killed):
        _train(tmp_path / "cut", Regression({5: die}))
    assert [path.name for path in saved_states(tmp_path / "cut")] == ["step-000003"]
    task, _ = _train(tmp_path / "cut", resume=True)
    assert float(task.extra_state["seen"]) == 8 * 6
    assert (tmp_path / "cut/line.safetensors").read_bytes() == (tmp_path / "whole/line.safetensors").read_bytes()


def test_micro_batches_of_unequal_sizes_are_the_batch(tmp_path):
    whole, _ = _train(tmp_path / "whole")
    cut, _ = _train(tmp_path / "cut", settings=replace(SETTINGS, micro_batch=4))
    for one, two in zip(whole.parameters.values(), cut.parameters.values()):
        assert torch.allclose(one, two, atol=1e-6)
    for one, two in zip(*(read_metrics(tmp_path / name) for name in ("whole", "cut"))):
        assert one.get("bias") == pytest.approx(two.get("bias"), abs=1e-6)


def test_samples_are_drawn_when_their_step_has_come(tmp_path):
    _train(tmp_path, settings=replace(SETTINGS, sample_every=3), sample=lambda state: {"drawn": float(state.step)})
    assert [row["drawn"] for row in read_metrics(tmp_path) if "drawn" in row] == [0, 3, 6, 8]


def test_patience_ends_a_run(tmp_path):
    task = Regression()
    task.validate = lambda name: [1.0]
    settings = replace(SETTINGS, validation=ValidationSettings(every=1, patience=2))
    _, results = _train(tmp_path, task, settings)
    assert (results["steps"], results["stopped early"]) == (2, "no better validation in the last 2")


def test_a_batch_smaller_than_the_devices_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", 7)
    with pytest.raises(InputError, match="batch: found 6; 7 devices"):
        _train(tmp_path)


def test_the_loop_imports_nothing_of_what_it_trains():
    tree = ast.parse(Path(loop.__file__).read_text(encoding="utf-8"))
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if any(word in name for word in ("lora", "models", "cache", "batches"))]
