"""The settings of drawing: the step adapter that a base carries."""

import shutil
from pathlib import Path

import pytest

from sdxl_mel.assets import MINI
from sdxl_mel.errors import InputError
from sdxl_mel.synthesis.settings import ModelSettings


def test_few_steps_is_the_adapter_that_the_base_carries_behind_other_loras(tmp_path: Path) -> None:
    base = Path(shutil.copytree(MINI, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors")))
    with pytest.raises(InputError, match="--few-steps: .* carries no step_adapter.safetensors; give a step adapter"):
        ModelSettings(base=str(base), few_steps=True).opened()
    (base / "step_adapter.safetensors").touch()
    opened = ModelSettings(base=str(base), few_steps=True, lora=("a.safetensors",), lora_scale=0.5).opened()
    assert opened["loras"] == ("a.safetensors", str(base / "step_adapter.safetensors"))
    assert opened["scales"] == [0.5, 1.0]
    assert ModelSettings(base=str(base), lora=("a.safetensors",)).opened()["loras"] == ("a.safetensors",)
