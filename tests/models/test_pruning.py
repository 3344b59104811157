"""Pruning: what stays is what matters, whole groups and heads keep their share, and nothing is lost that was dead."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sdxl_mel.models.pruning import Space, Wires, influences, keep, load_pruned, measured, most_influential

HIDDEN = Wires("0", writes=("hidden",))


@given(groups=st.integers(1, 6), of_a_group=st.integers(1, 5), more=st.integers(0, 4), seed=st.integers(0, 99))
def test_every_group_of_neighbours_keeps_its_share_of_the_most_important(groups, of_a_group, more, seed):
    size, kept = groups * (of_a_group + more), groups * of_a_group
    importance = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    channels = keep(Space(size, kept), importance).channels
    assert channels.tolist() == sorted(set(channels.tolist()))
    assert torch.bincount(channels // (of_a_group + more), minlength=groups).tolist() == [of_a_group] * groups


def test_heads_stay_whole():
    importance = torch.tensor([9.0, 0, 1, 1, 0, 0, 3, 3])
    assert keep(Space(8, 4, unit=2), importance).channels.tolist() == [0, 1, 6, 7]


def test_channels_that_are_stated_stay():
    assert keep(Space(8, 2, stated=(1, 5)), torch.zeros(8)).channels.tolist() == [1, 5]


def test_dead_channels_go_and_the_result_is_the_same():
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    # Of every two neighbours one is dead: it says nothing, or nothing reads it.
    silent, unread = [0, 3, 5, 6], [9, 10, 12, 15]
    with torch.no_grad():
        teacher[0].weight[silent], teacher[0].bias[silent] = 0.0, -1.0
        teacher[2].weight[:, unread] = 0.0
    student = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    given = torch.randn(200, 6)
    wires = {"0": HIDDEN, "2": Wires("2", reads=("hidden",))}
    spaces = measured(teacher, lambda: teacher(given), wires, {"hidden": Space(16, 8)})
    assert spaces["hidden"].channels.tolist() == [index for index in range(16) if index not in (*silent, *unread)]
    load_pruned(student, teacher, wires, spaces)
    assert torch.allclose(student(given), teacher(given), atol=1e-6)


def test_what_is_not_read_does_not_matter_and_what_is_large_does():
    teacher = nn.Sequential(nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        teacher[0].weight.copy_(torch.tensor([[1.0, 1, 0, 1], [1, 1, 0, 1]]))
    given = torch.tensor([[1.0, 3, 9, 2]])
    spaces = measured(teacher, lambda: teacher(given), {"0": Wires("0", reads=("in",))}, {"in": Space(4, 2)})
    assert spaces["in"].channels.tolist() == [1, 3]


class _Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return torch.cat([given[..., :1] * self.factor, given[..., 1:]], dim=-1)


def test_a_layer_that_changes_nothing_has_no_influence_and_goes():
    layers = nn.ModuleDict({"none": _Scale(1), "most": _Scale(-3), "some": _Scale(2)})
    given = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    with influences(dict(layers)) as influence:
        for layer in layers.values():
            layer(given)
    assert influence["none"] == pytest.approx(0, abs=1e-6)
    assert most_influential(list(layers), influence, 2) == ["most", "some"]
