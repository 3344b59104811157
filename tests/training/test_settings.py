"""Settings: what is impossible or misspelt is refused in one line that says what was meant."""

import pytest

from sdxl_mel.arguments import parse_arguments
from sdxl_mel.config import validated
from sdxl_mel.errors import InputError
from sdxl_mel.training.lora_settings import Config

NEEDED = {"base": "b", "cache": "c", "out": "o"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adapter": {"rnak": 8}}, r"unknown setting 'adapter.rnak' \(did you mean 'adapter.rank'\?\)"),
        ({"adapter": {"rank": 0}}, "adapter.rank: found 0"),
        ({"steps": 0}, "steps: found 0"),
        ({"batch": -1}, "batch"),
        ({"batch": 10**20}, "batch"),
        ({"optimizer": {"rate": 0}}, "optimizer.rate"),
        ({"optimizer": {"rate": float("nan")}}, "optimizer.rate"),
        ({"optimizer": {"name": "adam"}}, "optimizer.name: found 'adam'"),
        ({"loss": {"huber": {"axis": "step", "shape": "snr"}}}, "shape 'snr' needs axis 'timestep'"),
        ({"loss": {"huber": {"start": 0}}}, "loss.huber.start"),
        ({"timesteps": {"low": 500, "high": 400}}, "low 500 is not below high 400"),
        ({"timesteps": {"high": 1001}}, "timesteps.high"),
        ({"regularization": {"share": 1.0}}, "regularization.share"),
        ({"adapter": {"text_encoders": ["text_encoder_3"]}}, "text_encoder_3"),
        ({"averages": {"lengths": [0.4]}}, "averages.lengths"),
        ({"averages": {"lengths": [1e-300]}}, "averages.lengths"),
        ({"averages": {"feedback_every": 5}}, "needs averages.lengths"),
        ({"averages": {"lengths": [0.1]}, "optimizer": {"name": "schedule-free"}}, "averages by itself"),
        ({"validation": {"every": 0, "patience": 3}}, "needs validation.every"),
        ({"caption_dropout": 1.5}, "caption_dropout"),
    ],
)
def test_refused(settings, message):
    with pytest.raises(InputError, match=message) as caught:
        validated(Config, NEEDED | settings, "config.toml")
    assert "\n" not in str(caught.value)


def test_flags_reach_nested_settings():
    words = "--base b --cache c --out o --optimizer.rate 1e-3 --loss.kind huber --adapter.targets attention mid_block.*"
    config = parse_arguments(Config, words.split(), "train_lora.py")
    assert (config.optimizer.rate, config.loss.kind) == (1e-3, "huber")
    assert config.adapter.targets == ("attention", "mid_block.*")
    assert config.adapter.alpha_or_rank == 32.0
