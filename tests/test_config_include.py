"""Configs that include others, and the configs that ship."""

from pathlib import Path

import pytest

from sdxl_mel.arguments import parse_arguments
from sdxl_mel.commands import parse_command
from sdxl_mel.config import read_toml
from sdxl_mel.errors import InputError
from sdxl_mel.training.lora_settings import Config
from sdxl_mel.training.tasks import TASKS

CONFIGS = Path(__file__).parents[1] / "configs"
NEEDED = ["--base", "b", "--cache", "c", "--out", "o"]


def test_an_included_file_lies_below(tmp_path):
    (tmp_path / "base.toml").write_text("steps = 10\n[loss]\nkind = 'l2'\ngamma = 3.0\n")
    (tmp_path / "top.toml").write_text("include = 'base.toml'\n[loss]\ngamma = 4.0\n")
    assert read_toml(tmp_path / "top.toml") == {"steps": 10, "loss": {"kind": "l2", "gamma": 4.0}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("include = 'top.toml'", "includes itself"),
        ("include = 3", "expected the name"),
        ("include = 'no.toml'", "no.toml"),
    ],
)
def test_what_cannot_be_included(tmp_path, content, message):
    (tmp_path / "top.toml").write_text(content)
    with pytest.raises(InputError, match=message):
        read_toml(tmp_path / "top.toml")


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.toml")), ids=lambda path: path.stem)
def test_every_config_that_ships_is_valid(path):
    task = read_toml(path).get("task", "lora")
    fields = TASKS[task].settings.model_fields
    needed = [word for name, field in fields.items() if field.is_required() for word in (f"--{name}", "b")]
    config = parse_command("train", ["--config", str(path), *needed])
    assert config.task == task
    assert config.batch >= 4
    if path.parent.name == "ablations":
        assert len(path.read_text().splitlines()) <= 16


def test_the_users_recipe():
    config = parse_arguments(Config, ["--config", str(CONFIGS / "sdxl-24gb.toml"), *NEEDED], "train_lora.py")
    assert (config.loss.huber.start, config.loss.huber.end, config.loss.huber.axis) == (0.15, 0.05, "step")
    assert config.adapter.targets == ("all-linear",)
