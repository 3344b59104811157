"""What fuse and lora say a file was made of: every setting that decides its bytes, and the hash of every input."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sdxl_mel.models.base import open_base
from sdxl_mel.models.header import read_model_header
from sdxl_mel.models.lora.file import Lora, read_lora, write_lora
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.stages import fuse, lora
from tests.loras import random_module

LAYERS = ("text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.1.self_attn.q_proj")


@pytest.fixture
def loras(tmp_path: Path) -> list[Path]:
    """Two LoRAs of one name, as the trainer always writes it."""
    paths = [tmp_path / run / "lora.safetensors" for run in ("first", "second")]
    for seed, path in enumerate(paths):
        generator = torch.Generator().manual_seed(seed)
        modules = {("text_encoder", layer): random_module(nn.Linear(32, 32), 2, 1.0, generator) for layer in LAYERS}
        write_lora(path, Lora(modules))
    return paths


def test_fuse_names_alpha_every_lora_and_every_part_of_the_base(
    tiny_sdxl: Path, loras: list[Path], tmp_path: Path
) -> None:
    without = {name: tensor for name, tensor in load_file(loras[1]).items() if not name.endswith(".alpha")}
    save_file(without, loras[1])
    base = open_base(tiny_sdxl, ())
    records = {}
    for alpha in ("rank", 1.0):
        out = tmp_path / f"{alpha}.safetensors"
        fuse.run(fuse.Config(base=str(tiny_sdxl), lora=tuple(map(str, loras)), scale=(0.5, 1.0), alpha=alpha, out=out))
        header = read_model_header(out)
        assert header is not None and isinstance(header.record, Record)
        records[alpha] = header.record
    assert records["rank"] != records[1.0]
    assert records["rank"].settings == {"base": tiny_sdxl.name, "scale": [0.5, 1.0], "dtype": "fp32", "alpha": "rank"}
    assert records["rank"].inputs == {
        **{f"base {part}": base.identity_of(part) for part in base.family.parts},
        "0001 lora.safetensors": sha256_file(loras[0]),
        "0002 lora.safetensors": sha256_file(loras[1]),
    }


def test_a_merge_names_both_loras(loras: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "both.safetensors"
    lora.run(lora.Merge(files=tuple(map(str, loras)), out=out))
    record = read_lora(out).header.record
    assert record is not None
    assert list(record.inputs.values()) == [sha256_file(path) for path in loras]


def test_a_lora_in_a_folder_is_hashed_too(loras: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "diffusers"
    write_lora(folder / "pytorch_lora_weights.safetensors", read_lora(loras[0]), "diffusers")
    out = tmp_path / "small.safetensors"
    lora.run(lora.Resize(file=str(folder), rank=1, out=out))
    record = read_lora(out).header.record
    assert record is not None
    name = "0001 diffusers/pytorch_lora_weights.safetensors"
    assert record.inputs == {name: sha256_file(folder / "pytorch_lora_weights.safetensors")}


def test_an_extraction_names_both_models(tiny_sdxl: Path, loras: list[Path], tmp_path: Path) -> None:
    fuse.run(fuse.Config(base=str(tiny_sdxl), lora=(str(loras[0]),), out=tmp_path / "tuned"))
    out = tmp_path / "back.safetensors"
    lora.run(lora.Extract(base=str(tiny_sdxl), tuned=str(tmp_path / "tuned"), rank=2, out=out))
    record = read_lora(out).header.record
    assert record is not None
    expected = open_base(tiny_sdxl, ()).identity_of("text_encoder")
    assert record.inputs["base text_encoder"] == expected != record.inputs["tuned text_encoder"]
