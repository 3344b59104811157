"""Loss weights by SNR against the published tables, for both predictions."""

import pytest
import torch

from sdxl_mel.diffusion.losses import counts_twice, signal_to_noise, snr_weights
from tests.diffusion.test_schedules import SDXL

SNR = signal_to_noise(SDXL)


@pytest.mark.parametrize(
    ("snr", "weighting", "prediction", "expected"),
    [
        (10.0, "none", "epsilon", 1.0),
        (10.0, "min-snr", "epsilon", 0.5),
        (2.0, "min-snr", "epsilon", 1.0),
        # v: min(SNR, gamma) / (SNR + 1), not diffusers' dreambooth min(SNR, gamma) / SNR + 1 (its issue 9451).
        (9.0, "min-snr", "v_prediction", 0.5),
        (1.0, "min-snr", "v_prediction", 0.5),
        (4.0, "debiased", "epsilon", 0.5),
        (1e6, "debiased", "epsilon", 1000**-0.5),
        (3.0, "debiased", "v_prediction", 0.25),
    ],
)
def test_by_hand(snr, weighting, prediction, expected):
    weight = snr_weights(torch.tensor([snr], dtype=torch.float64), weighting, prediction, gamma=5.0)
    assert float(weight) == pytest.approx(expected)


def test_sdxl_snr_landmarks():
    assert float(SNR[0]) == pytest.approx(1175, rel=0.01)
    assert int((SNR - 5).abs().argmin()) == pytest.approx(146, abs=1)
    assert int((SNR - 1).abs().argmin()) == pytest.approx(354, abs=1)


@pytest.mark.parametrize(("gamma", "mean"), [(5.0, 0.917), (1.0, 0.767)])
def test_mean_weight_of_sdxl(gamma, mean):
    assert float(snr_weights(SNR, "min-snr", "epsilon", gamma).mean()) == pytest.approx(mean, abs=2e-3)


@pytest.mark.parametrize(
    ("weighting", "delta", "twice"),
    [
        ("min-snr", 0.05, True),
        ("debiased", 0.1, True),
        ("none", 0.05, False),
        ("min-snr", 1.0, False),
        ("min-snr", None, False),
    ],
)
def test_double_counting_is_noticed(weighting, delta, twice):
    assert counts_twice(weighting, delta) is twice
