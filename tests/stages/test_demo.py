"""The plan of the demo: every line is a command that its stage accepts, and a finished step is not done again."""

from importlib import import_module
from pathlib import Path

import pytest

from sdxl_mel.arguments import parse_arguments
from sdxl_mel.corpus.instruments import LEFT_OUT
from sdxl_mel.demo.command import steps
from sdxl_mel.demo.plan import LINES, PREPARE, Size, quick_dtype, step_of
from sdxl_mel.demo.prompts import known_prompts
from sdxl_mel.demo.steps import Step, run_steps
from sdxl_mel.errors import InputError

VALUES = {"seed": "0", "tracks": "10", "steps": "10", "song": "solo banjo", "dtype": "fp32", "config": "mini.toml"}


@pytest.mark.parametrize("line", [PREPARE, *LINES], ids=lambda line: line.name)
def test_every_command_is_one_that_its_stage_accepts(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mini.toml").write_text('base = "mini"\n')
    step = step_of(line, Path("demo"), VALUES)
    module = import_module(f"sdxl_mel.stages.{step.stage.replace('-', '_')}")
    parse_arguments(module.Config, step.words, step.stage)
    assert "{" not in step.command


def test_the_size_grows_with_the_minutes():
    assert Size.of(10) == Size(tracks=360, steps=600, known=64)
    assert Size.of(5) == Size(tracks=180, steps=300, known=32)
    assert Size.of(0.01) == Size(tracks=10, steps=10, known=4)


def test_numbers_are_those_the_processor_is_quick_with(monkeypatch):
    for has_tiles, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda has=has_tiles: {"amx_bf16": has})
        assert quick_dtype() == expected
    monkeypatch.delattr("torch.cpu.get_capabilities")
    assert quick_dtype() == "fp32"


def test_known_prompts_ask_for_nothing_new():
    prompts = known_prompts(12, seed=0)
    assert len(prompts) == 12
    assert not any(name in prompt for prompt in prompts for name in LEFT_OUT)


def test_a_finished_step_is_found_done_and_other_settings_are_refused(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(steps, "_run", lambda step: ran.append(step.name) or "well")
    first, second = Step("one", "why", "stitch", ("--a", "1")), Step("two", "why", "stitch", ("--b", "2"))
    assert [done.summary for done in run_steps([first], tmp_path, 1, 2)] == ["well"]
    assert [done.step.name for done in run_steps([first, second], tmp_path, 1, 2)] == ["one", "two"]
    assert ran == ["one", "two"]
    with pytest.raises(InputError, match=r"01-one\.json: .*made with other settings .*--a 1.*another --out"):
        list(run_steps([Step("one", "why", "stitch", ("--a", "3"))], tmp_path, 1, 2))
