"""What distilling students costs: counts of the real models, and memory for one card of 24 GB at preset web."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from sdxl_mel.config import read_toml, validated
from sdxl_mel.models.student import StudentShape, student_config
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.training.costs import count_costs
from sdxl_mel.training.student_costs import count_distillation, memory_of_distillation
from sdxl_mel.training.student_settings import Config
from tests.loras import meta_sdxl_unet
from tests.tiny_models import tiny_unet

CONFIGS = Path(__file__).parents[2] / "configs" / "students"
GIB = 2**30


def test_the_teacher_only_predicts():
    teacher, student = tiny_unet(slim=True).requires_grad_(False), tiny_unet(slim=True)
    size = {"height": 8, "width": 8, "dtype": torch.float32}
    own, both = count_costs(student, batch=4, **size), count_distillation(student, teacher, batch=2, **size)
    assert both.adapter_parameters == own.adapter_parameters == both.base_parameters
    assert both.saved_bytes == own.saved_bytes
    assert 1.25 * own.flops < both.flops < 1.4 * own.flops


@pytest.mark.parametrize(
    ("name", "gib", "tflop"),
    [
        pytest.param("165m", 8.9, 16.6, marks=pytest.mark.slow),
        pytest.param("330m", 12.2, 21.8, marks=pytest.mark.slow),
        ("700m", 19.4, 26.6),
    ],
)
def test_students_of_sdxl_are_distilled_on_a_card_of_24_gb(name, gib, tflop):
    given = read_toml(CONFIGS / f"sdxl-{name}.toml") | {"base": "b", "cache": "c", "out": "o"}
    config = validated(Config, given, name)
    teacher = meta_sdxl_unet().requires_grad_(False).to(torch.bfloat16)
    with torch.device("meta"):
        shape = StudentShape(**config.student.model_dump(exclude={"init"}))
        student = UNet2DConditionModel.from_config(student_config(teacher.config, shape))
    spec = PRESETS["web"]
    costs = count_distillation(
        student,
        teacher,
        batch=config.micro_batch or config.batch,
        height=spec.n_mels // 8,
        width=spec.width // 8,
        dtype=torch.bfloat16,
        checkpointing=config.hardware.gradient_checkpointing,
    )
    total = sum(memory_of_distillation(costs, config.loop, torch.bfloat16).values()) / GIB
    print(f"{name}: {total:.1f} GiB, {costs.flops / 1e12:.2f} TFLOP a micro-batch of {config.micro_batch}")
    assert total < 22
    assert total == pytest.approx(gib, rel=0.02)
    assert costs.flops / 1e12 == pytest.approx(tflop, rel=0.02)
