"""Of which family a LoRA of another tool is, where its modules fit several: by evidence, or it is said."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdxl_mel.models.family import Family
from sdxl_mel.models.lora.file import read_lora
from sdxl_mel.models.sd15 import SD15
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.progress import Event, Message, showing

ENCODER = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
MIDDLE = "unet.mid_block.resnets.0.conv1"
TEXT_READER = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def read(path: Path, module: str, width: int, metadata: dict[str, str] | None) -> tuple[Family, list[str]]:
    """Return the family a LoRA is taken for, and what was said."""
    kernel = (1, 1) if "conv" in module else ()
    tensors = {"lora_A.weight": torch.ones(2, width, *kernel), "lora_B.weight": torch.ones(8, 2, *kernel)}
    save_file({f"{module}.{kind}": tensor for kind, tensor in tensors.items()}, path, metadata)
    heard: list[Event] = []
    with showing(heard.append):
        family = read_lora(path, alpha="rank").family
    return family, [event.text for event in heard if isinstance(event, Message) and "does not say which" in event.text]


@pytest.mark.parametrize("module", [ENCODER, MIDDLE])
def test_without_evidence_it_is_said(module: str, tmp_path: Path) -> None:
    family, said = read(tmp_path / "lora.safetensors", module, 8, None)
    assert family is SDXL
    assert len(said) == 1
    assert said[0].endswith("lora.safetensors: fits SDXL and SD 1.5, and does not say which; taken for the former")


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"ss_base_model_version": "sd_v1"}, SD15),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, SDXL),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, SD15),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, SDXL),
    ],
)
@pytest.mark.parametrize("module", [ENCODER, MIDDLE])
def test_what_its_metadata_says_decides(module: str, metadata: dict[str, str], family: Family, tmp_path: Path) -> None:
    assert read(tmp_path / "lora.safetensors", module, 8, metadata) == (family, [])


@pytest.mark.parametrize(("width", "family"), [(768, SD15), (2048, SDXL)])
def test_the_width_of_the_text_is_stronger_than_words(width: int, family: Family, tmp_path: Path) -> None:
    other = "sdxl_base_v1-0" if family is SD15 else "sd_v1"
    assert read(tmp_path / "lora.safetensors", TEXT_READER, width, {"ss_base_model_version": other}) == (family, [])
