"""What cannot be fused is refused before anything is written: one line, exit code 2."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sdxl_mel.cli import run_stage
from sdxl_mel.errors import InputError
from sdxl_mel.models.lora.file import Lora, write_lora
from sdxl_mel.models.lora.scaled import paired_scales
from tests.loras import random_module

MODULE = ("unet", "mid_block.attentions.0.proj_in")


@pytest.fixture
def lora(tmp_path):
    write_lora(
        tmp_path / "lora.safetensors", Lora({MODULE: random_module(nn.Linear(64, 64), 2, 1.0, torch.Generator())})
    )
    return tmp_path / "lora.safetensors"


def refusal(capsys, tmp_path, *arguments) -> str:
    out = tmp_path / "fused"
    code = run_stage("fuse", [*map(str, arguments), "--out", str(out)], "fuse_lora.py")
    message = capsys.readouterr().err.strip()
    assert code == 2
    assert not out.exists()
    return " ".join(message.split())


def test_a_lora_for_other_shapes(capsys, tmp_path, tiny_sdxl):
    wide = random_module(nn.Linear(1280, 1280), 2, 1.0, torch.Generator())
    write_lora(tmp_path / "lora.safetensors", Lora({MODULE: wide}))
    message = refusal(capsys, tmp_path, "--base", tiny_sdxl, "--lora", tmp_path / "lora.safetensors")
    assert "1 of 1 modules do not fit" in message
    assert "for a weight of 1280 x 1280, the base has 64 x 64" in message


def test_a_lora_for_a_module_that_the_base_has_not(capsys, tmp_path, tiny_sdxl):
    path = ("text_encoder", "text_model.encoder.layers.11.mlp.fc1")
    write_lora(tmp_path / "lora.safetensors", Lora({path: random_module(nn.Linear(4, 4), 2, 1.0, torch.Generator())}))
    message = refusal(capsys, tmp_path, "--base", tiny_sdxl, "--lora", tmp_path / "lora.safetensors")
    assert f"{'.'.join(path)} (not in the base)" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [({"addition_embed_type": None, "cross_attention_dim": 1024}, "SD 2.x"), ({"in_channels": 9}, "inpainting")],
)
def test_a_base_of_another_architecture(change, said, capsys, tmp_path, tiny_sdxl, lora):
    shutil.copytree(tiny_sdxl, tmp_path / "base")
    config = tmp_path / "base" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    index = tmp_path / "base" / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionXLPipeline", "StableDiffusionPipeline"))
    assert said in refusal(capsys, tmp_path, "--base", tmp_path / "base", "--lora", lora)


def test_bases_that_are_no_checkpoints(capsys, tmp_path, lora):
    assert "a LoRA, not a base model" in refusal(capsys, tmp_path, "--base", lora, "--lora", lora)
    assert "no such folder or file" in refusal(capsys, tmp_path, "--base", tmp_path / "absent", "--lora", lora)
    torch.save({}, tmp_path / "base.ckpt")
    assert "a pickle" in refusal(capsys, tmp_path, "--base", tmp_path / "base.ckpt", "--lora", lora)


def test_a_truncated_base(capsys, tmp_path, tiny_sdxl, lora):
    shutil.copytree(tiny_sdxl, tmp_path / "base")
    weights = tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    message = refusal(capsys, tmp_path, "--base", tmp_path / "base", "--lora", lora)
    assert "not a whole safetensors file" in message


def test_a_sum_that_fp16_cannot_hold(capsys, tmp_path, tiny_sdxl):
    huge = random_module(nn.Linear(64, 64), 2, 1.0, torch.Generator())
    huge.up.mul_(1e6)
    write_lora(tmp_path / "lora.safetensors", Lora({MODULE: huge}))
    arguments = ("--base", tiny_sdxl, "--lora", tmp_path / "lora.safetensors", "--dtype", "fp16")
    assert "mid_block.attentions.0.proj_in.weight: base + LoRA is not finite" in refusal(capsys, tmp_path, *arguments)


def test_an_output_that_is_there(capsys, tmp_path, tiny_sdxl, lora):
    (tmp_path / "there.safetensors").write_bytes(b"precious")
    arguments = ["--base", str(tiny_sdxl), "--lora", str(lora), "--out", str(tmp_path / "there.safetensors")]
    assert run_stage("fuse", arguments, "fuse_lora.py") == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "there.safetensors").read_bytes() == b"precious"


def test_bf16_by_flag(capsys, tmp_path, tiny_sdxl, lora):
    message = refusal(capsys, tmp_path, "--base", tiny_sdxl, "--lora", lora, "--dtype", "bf16")
    assert "--force-bf16" in message


def test_an_unknown_tensor_in_a_single_file(capsys, tmp_path, tiny_sdxl, lora):
    base = tmp_path / "base.safetensors"
    assert run_stage("fuse", ["--base", str(tiny_sdxl), "--lora", str(lora), "--out", str(base)], "") == 0
    save_file(load_file(base) | {"model.diffusion_model.control.weight": torch.zeros(1)}, base)
    message = refusal(capsys, tmp_path, "--base", base, "--configs", tiny_sdxl, "--lora", lora)
    assert "SDXL has no tensor model.diffusion_model.control.weight" in message


def test_scales_pair_with_loras(tmp_path):
    assert [scale for _, scale in paired_scales(["a", "b"])] == [1, 1]
    assert [scale for _, scale in paired_scales(["a", "b"], [0.5, -2])] == [0.5, -2]
    assert [(path.name, scale) for path, scale in paired_scales(["a:0.5", "b"])] == [("a", 0.5), ("b", 1)]
    (tmp_path / "a:2").touch()
    assert paired_scales([str(tmp_path / "a:2")]) == [(tmp_path / "a:2", 1)]
    for files, scales, said in [
        (["a", "b"], [1.0], "1 --scale for 2 --lora"),
        (["a"], [1.0, 2.0], "2 --scale for 1 --lora"),
        (["a:0.5"], [1.0], "both as FILE:SCALE and as a setting"),
        (["a:nan"], [], "no strength"),
    ]:
        with pytest.raises(InputError, match=said):
            paired_scales(files, scales)
