"""The table of what can be trained, and how a command line chooses from it."""

from pathlib import Path
from typing import get_args

import pytest

from sdxl_mel.commands import COMMANDS, parse_command
from sdxl_mel.config import validated
from sdxl_mel.errors import InputError
from sdxl_mel.files.run import to_toml
from sdxl_mel.training.lora_settings import Config
from sdxl_mel.training.settings import TaskName
from sdxl_mel.training.tasks import TASKS

NEEDED = ["--base", "b", "--cache", "c", "--out", "o"]
IN_FILES = (
    *("base", "cache", "out", "steps", "batch", "micro_batch", "seed", "save_every", "keep", "resume"),
    *("resume_with_changes", "dry_run", "push_to_hub", "caption_dropout", "caption_variants", "posterior", "vae"),
    *("trackers", "adapter", "optimizer", "loss", "noise", "timesteps", "regularization", "averages", "validation"),
    *("samples", "hardware"),
)
"""The settings of a LoRA's run in the order in which files hold them; another order would change the bytes of LoRAs."""


def test_every_name_is_a_row_that_can_be_loaded():
    assert list(TASKS) == list(get_args(TaskName))
    for name, row in TASKS.items():
        assert row.settings.model_fields["task"].default == name
        assert callable(row.load())


def test_a_lora_is_what_is_trained_unless_a_task_is_named(tmp_path: Path):
    path = tmp_path / "lora.toml"
    path.write_text('task = "lora"\nsteps = 7\n')
    for words in (NEEDED, ["--task", "lora", *NEEDED], ["--config", str(path), *NEEDED]):
        assert type(parse_command("train", words)) is Config
    with pytest.raises(InputError, match=r"--task: found 'loar' \(did you mean 'lora'\?\); expected one of lora"):
        parse_command("train", ["--task", "loar", *NEEDED])
    path.write_text('task = "nothing"\n')
    with pytest.raises(InputError, match="--task: found 'nothing'"):
        parse_command("train", ["--config", str(path), *NEEDED])


def test_a_lora_says_its_settings_as_before_there_were_tasks():
    config = validated(Config, {"base": "b", "cache": "c", "out": "o"}, "test")
    assert tuple(config.model_dump()) == IN_FILES
    assert "task" not in to_toml(config.model_dump(mode="json")) and "task" not in config.recorded()


def test_every_task_has_words_that_choose_it():
    for name, row in TASKS.items():
        with pytest.raises(InputError, match="steps: found") as caught:
            parse_command("train", [*COMMANDS["train"].words_for(name), "--steps", "0"])
        assert str(caught.value).startswith("sdxl-mel train" + f" --task {name}" * (name != "lora"))
        assert row.settings.model_fields["task"].default == name
