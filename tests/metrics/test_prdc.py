import pytest
from prdc import compute_prdc

from sdxl_mel.metrics.outliers import prdc
from tests.metrics.simulated import units


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_agrees_with_its_package(shift):
    reference, generated = units(80, 32, 1), units(60, 32, 2, shift)
    peer = compute_prdc(reference, generated, nearest_k=5)
    ours = prdc(reference, generated)
    for name, value in peer.items():
        assert ours[name] == pytest.approx(value, abs=1e-12)


def test_collapse_costs_coverage_and_not_precision():
    reference = units(80, 32, 1)
    ours = prdc(reference, reference[:1].repeat(60, axis=0))
    assert ours["precision"] == 1.0
    assert ours["coverage"] < 0.2
