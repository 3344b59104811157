"""SDXL 1.0 at its true size, without its weights: counts, names, and the memory that the README predicts."""

import time

import pytest
import torch
from torch import nn

from sdxl_mel.models.family import Part
from sdxl_mel.models.layouts import Architecture, canonical
from sdxl_mel.models.lora.adapters import attach, select_targets
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.training.costs import count_costs, memory_of
from tests.loras import meta_sdxl_unet
from tests.true_size import meta_sdxl

GIB = 2**30
CONTEXT = 1.5
"""GiB left for the context of the device."""


@pytest.fixture(scope="module")
def sdxl() -> dict[Part, nn.Module]:
    return meta_sdxl()


@pytest.fixture(scope="module")
def adapted() -> nn.Module:
    unet = meta_sdxl_unet().to(torch.bfloat16)
    attach({"unet": unet}, rank=32, alpha=32)
    return unet


def test_parameters(sdxl: dict[Part, nn.Module]) -> None:
    assert {part: sum(each.numel() for each in model.parameters()) for part, model in sdxl.items()} == {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    }


def test_adapted_layers(sdxl: dict[Part, nn.Module]) -> None:
    def count(part: Part, targets: str) -> int:
        return len(select_targets(sdxl[part], part, [targets]))

    assert [count("unet", targets) for targets in ("all-linear", "attention", "all-linear+conv")] == [722, 560, 794]
    assert [count(part, "all-linear") for part in ("text_encoder", "text_encoder_2")] == [72, 192]
    assert [count(part, "attention") for part in ("text_encoder", "text_encoder_2")] == [48, 128]


def test_every_tensor_has_its_place_in_a_single_file(sdxl: dict[Part, nn.Module]) -> None:
    """sd_xl_base_1.0.safetensors holds 2,515 tensors; two of them, positions and a scale, are no parameters."""
    places = set()
    for part, model in sdxl.items():
        for name, _ in model.named_parameters():
            param = part, canonical(part, name)
            stored = Architecture(SDXL).stored_as(param)
            assert stored is not None, name
            assert param in Architecture(SDXL).kept_in(stored.name), stored.name
            places.add(stored.name)
    assert len(places) == 2515 - 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkpointing", "kept", "total", "work"),
    [(False, 3.2, 14, 6.9), (True, 0.3, 8, 10.2)],
    ids=["plain", "checkpointed"],
)
def test_costs_are_what_the_readme_predicts(
    adapted: nn.Module, checkpointing: bool, kept: float, total: int, work: float
) -> None:
    """Preset std: 1024 x 512 pixels, 64 x 128 latents, batch 2, rank 32 on all Linear layers, AdamW."""
    started = time.process_time()
    costs = count_costs(adapted, batch=2, height=64, width=128, dtype=torch.bfloat16, checkpointing=checkpointing)
    assert time.process_time() - started < 2, "a training start waits for this"
    assert costs.base_parameters == 2_567_463_684
    assert costs.adapter_parameters == 85_114_880
    memory = memory_of(costs, "adamw", torch.bfloat16)
    assert memory["base"] / GIB == pytest.approx(4.8, abs=0.05)
    assert memory["adapters, gradients, optimizer"] / GIB == pytest.approx(1.3, abs=0.05)
    assert costs.saved_bytes / 2 / GIB == pytest.approx(kept, abs=0.05)
    assert costs.flops / 2 / 1e12 == pytest.approx(work, abs=0.1)
    assert sum(memory.values()) / GIB + CONTEXT == pytest.approx(total, abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "batch", "checkpointing", "millions", "gib", "tflop"),
    [
        (32, 4, False, 98.8, 21.0, 28.5),
        (64, 2, False, 197.7, 16.1, 15.1),
        (64, 4, False, 197.7, 22.7, 30.2),
        (64, 8, True, 197.7, 12.0, 88.4),
    ],
)
def test_costs_of_a_step_adapter_are_what_its_page_predicts(
    rank: int, batch: int, checkpointing: bool, millions: float, gib: float, tflop: float
) -> None:
    """Preset std, on every Linear and convolution; configs/steps-24gb.toml has rank 64 and micro-batches of 2."""
    unet = meta_sdxl_unet().to(torch.bfloat16)
    attach({"unet": unet}, targets=("all-linear+conv",), rank=rank, alpha=rank)
    costs = count_costs(unet, batch=batch, height=64, width=128, dtype=torch.bfloat16, checkpointing=checkpointing)
    assert costs.adapter_parameters / 1e6 == pytest.approx(millions, abs=0.1)
    assert costs.flops / 1e12 == pytest.approx(tflop, abs=0.1)
    total = sum(memory_of(costs, "adamw", torch.bfloat16).values()) / GIB + CONTEXT
    assert total == pytest.approx(gib, abs=0.1)
