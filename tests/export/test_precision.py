"""What stays float16: expected errors against derivatives worked out by hand, and the choice among them."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from torch import Tensor, nn

from sdxl_mel.export.graphs import Part
from sdxl_mel.export.manifest import Drawn
from sdxl_mel.export.precision import HALF_SHARE, Step, most_worth, rounding_errors, unet_steps, worth_halves
from sdxl_mel.export.weights import quantised
from sdxl_mel.seeding import numpy_generator
from tests.exported import Site

GUIDANCE = 2.5


class Two(nn.Module):
    """A prediction of one number from two of each picture, by a matrix and a table."""

    def __init__(self) -> None:
        super().__init__()
        random = numpy_generator(0, "two")
        self.matrix = nn.Parameter(torch.from_numpy(np.float32(random.normal(size=(3, 4)))), False)
        self.last = nn.Parameter(torch.from_numpy(np.float32(random.normal(size=(1, 3)))), False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.T @ self.last.T


def test_expected_errors_are_squares_of_derivatives_times_those_of_scales() -> None:
    module, inputs = Two(), np.float32(numpy_generator(1, "x").normal(size=(2, 4)))
    part = Part("unet", module, {"x": torch.from_numpy(inputs)}, {}, ("y",))
    matrix, last = module.matrix.numpy(), module.last.numpy()
    weights = {"turned": np.ascontiguousarray(matrix.T), "last": last, "foreign": np.ones((2, 2), np.float32)}
    axes = {"turned": 1, "last": 0, "foreign": 0}
    found = rounding_errors(part, weights, axes, [Step({"x": inputs}, 0.5), Step({"x": 2 * inputs}, 0.125)], GUIDANCE)
    guided = inputs[0] + GUIDANCE * (inputs[1] - inputs[0])
    scales = quantised(matrix, 0)[1]
    wanted = {
        "turned": np.sum(np.outer(last[0], guided) ** 2 * scales[:, None] ** 2) / 12,
        "last": np.sum((matrix @ guided) ** 2) * float(quantised(last, 0)[1][0]) ** 2 / 12,
    }
    assert found == {name: pytest.approx(float(value), rel=1e-4) for name, value in wanted.items()}
    assert not any(parameter.requires_grad for parameter in module.parameters())


@given(
    st.dictionaries(st.text(max_size=3), st.tuples(st.floats(0, 1), st.integers(1, 100)), max_size=12),
    st.integers(0, 300),
)
def test_the_choice_fits_and_nothing_better_is_left_that_would_fit(
    each: dict[str, tuple[float, int]], room: int
) -> None:
    errors, sizes = ({name: pair[place] for name, pair in each.items()} for place in (0, 1))
    chosen = most_worth(errors, sizes, room)
    taken = sum(sizes[name] for name in chosen)
    assert taken <= room
    for name in each.keys() - chosen:
        worthier = sum(sizes[other] for other in chosen if errors[other] / sizes[other] >= errors[name] / sizes[name])
        assert worthier + sizes[name] > room


@pytest.mark.slow
def test_a_unets_steps_are_looked_at_and_a_share_is_chosen(slim_site: Site) -> None:
    exact, drawing = slim_site.opened(), Drawn(sampler="dpmpp_2m", steps=6, guidance=GUIDANCE)
    steps = unet_steps(exact, "flute", drawing)
    assert [step.inputs["latents"].shape for step in steps] == [(2, 4, 16, 32)] * 6
    noise = [step.noise for step in steps]
    assert 1 > noise[0] > 0.9
    assert noise == sorted(noise, reverse=True)

    class Linear(nn.Module):
        """A UNet that is a small layer which counts much and a large one which counts little."""

        def __init__(self) -> None:
            super().__init__()
            self.small, self.large = nn.Conv2d(4, 4, 75, padding=37), nn.Conv2d(4, 4, 181, padding=90)
            with torch.no_grad():
                self.large.weight.mul_(1e-3)

        def forward(self, latents: Tensor, *_: Tensor) -> Tensor:
            return self.small(latents) + self.large(latents)

    module = Linear().requires_grad_(False).eval()
    part = Part(
        "unet", module, {name: torch.from_numpy(each) for name, each in steps[0].inputs.items()}, {}, ("noise",)
    )
    tensors = [numpy_helper.from_array(value.numpy(), name) for name, value in module.named_parameters()]
    nodes = [
        helper.make_node("Conv", ["latents", f"{name}.weight", f"{name}.bias"], [name]) for name in ("small", "large")
    ]
    model = helper.make_model(helper.make_graph(nodes, "unet", [], [], tensors))
    assert isinstance(model, onnx.ModelProto)
    assert HALF_SHARE * 4 * 4 * (75**2 + 181**2) >= 4 * 4 * 75**2
    assert worth_halves(part, model, exact, drawing) == {"small.weight"}
