"""Saved states: every optimizer goes on bit for bit, and what does not fit is refused."""

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from sdxl_mel.errors import FormatError, MismatchError, ResourceError
from sdxl_mel.models.lora.adapters import attach
from sdxl_mel.training import state as checkpoint
from sdxl_mel.training.ema import Averages
from sdxl_mel.training.optimizers import build_optimizer, set_rates
from sdxl_mel.training.state import State, evaluation_weights, load_state, save_state, saved_states

OPTIMIZERS = ["adamw", "prodigy", "schedule-free", "adafactor"]


def _fresh(optimizer="adamw", rank=4):
    model = nn.ModuleDict({"proj": nn.Linear(8, 8)})
    with torch.no_grad():
        model["proj"].weight.copy_(torch.eye(8))
        model["proj"].bias.zero_()
    adapters = attach({"unet": model}, targets=["proj"], rank=rank, alpha=4)
    built = build_optimizer(optimizer, [{"params": adapters.parameters(), "lr": 0.1}])
    return model, State(dict(adapters.named_parameters()), built, Averages(adapters.parameters(), [0.1, 0.2]))


def _advance(model, state, steps):
    for _ in range(steps):
        x = torch.randn(5, 8, generator=torch.Generator().manual_seed(state.step))
        (model["proj"](x) - x.flip(1)).square().mean().backward()
        set_rates(state.optimizer, 1 / (state.step + 1))
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.step += 1
        state.averages.update(state.parameters.values(), state.step)


def _weights(state):
    with evaluation_weights(state.optimizer):
        return [parameter.detach().clone() for parameter in state.parameters.values()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_saved_and_loaded_goes_on_bit_for_bit(tmp_path, optimizer):
    model, state = _fresh(optimizer)
    _advance(model, state, 3)
    save_state(tmp_path, state, keep=2)
    _advance(model, state, 4)
    other, resumed = _fresh(optimizer)
    load_state(next(saved_states(tmp_path)), resumed)
    assert resumed.step == 3
    _advance(other, resumed, 4)
    for one, two in zip(_weights(state), _weights(resumed)):
        assert torch.equal(one, two)
    for length in (0.1, 0.2):
        for one, two in zip(state.averages.tensors[length], resumed.averages.tensors[length]):
            assert torch.equal(one, two)


def test_looking_at_a_schedule_free_run_does_not_change_it():
    model, state = _fresh("schedule-free")
    _advance(model, state, 3)
    before = [parameter.detach().clone() for parameter in state.parameters.values()]
    judged = _weights(state)
    assert not torch.equal(judged[1], before[1]), "training and judged weights differ"
    for one, two in zip(before, state.parameters.values()):
        assert torch.equal(one, two)


def test_a_state_of_other_adapters_is_refused(tmp_path):
    save_state(tmp_path, _fresh()[1], keep=1)
    with pytest.raises(MismatchError, match="adapter tensors"):
        load_state(next(saved_states(tmp_path)), _fresh(rank=2)[1])


def test_a_state_nested_too_deep_is_called_damaged(tmp_path):
    save_state(tmp_path, _fresh()[1], keep=1)
    (folder,) = saved_states(tmp_path)
    (folder / "state.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match="damaged .nested too deep"):
        load_state(folder, _fresh()[1])


def test_a_disk_that_dies_leaves_the_state_before(tmp_path, monkeypatch):
    model, state = _fresh()
    _advance(model, state, 1)
    save_state(tmp_path, state, keep=2)
    _advance(model, state, 1)

    def dies(*_):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", dies)
    with pytest.raises(ResourceError, match="No space left"):
        save_state(tmp_path, state, keep=2)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-000001"]


def test_nothing_is_pickled(tmp_path):
    model, state = _fresh()
    _advance(model, state, 1)
    folder = save_state(tmp_path, state, keep=1)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
