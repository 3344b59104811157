"""Every file that is no usable SDXL LoRA is refused in one line that says what it is."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.models.lora.file import Lora, read_lora, write_lora
from tests.loras import random_module

PATH = ("unet", "mid_block.attentions.0.proj_in")
NAME = "lora_unet_middle_block_1_proj_in"


@pytest.fixture
def lora(tmp_path):
    path = tmp_path / "lora.safetensors"
    write_lora(path, Lora({PATH: random_module(nn.Linear(6, 4), 2, 1.0, torch.Generator())}))
    return path


def refused(path, alpha=None) -> str:
    with pytest.raises(InputError) as error:
        read_lora(path, alpha)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("tensor", ["lora_down.weight", "lora_up.weight"])
def test_a_missing_tensor(tensor, lora):
    tensors = load_file(lora)
    del tensors[f"{NAME}.{tensor}"]
    save_file(tensors, lora)
    message = refused(lora)
    assert f"unet.{PATH[1]} has no {tensor.removeprefix('lora_').removesuffix('.weight')}" in message


def test_a_missing_alpha_can_be_stated(lora):
    tensors = load_file(lora)
    del tensors[f"{NAME}.alpha"]
    save_file(tensors, lora)
    assert read_lora(lora, alpha="rank").modules[PATH].scale == read_lora(lora).modules[PATH].scale == 1
    assert read_lora(lora, alpha=4.0).modules[PATH].scale == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("tensor", ["lora_down.weight", "lora_up.weight", "alpha"])
def test_what_is_not_finite(value, tensor, lora):
    tensors = load_file(lora)
    tensors[f"{NAME}.{tensor}"].view(-1)[0] = value
    save_file(tensors, lora)
    assert "holds NaN or infinity" in refused(lora)


def test_an_alpha_of_zero(lora):
    save_file(load_file(lora) | {f"{NAME}.alpha": torch.tensor(0.0)}, lora)
    assert "alpha is 0" in refused(lora)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (((2, 6), (4, 3)), "down 2 x 6 and up 4 x 3 do not fit together (rank 2 against 3)"),
        (((6, 2), (2, 4)), "do not fit together"),
        (((2, 6, 3, 3), (4, 2)), "neither linear nor convolutional"),
        (((0, 6), (4, 0)), "is empty"),
    ],
)
def test_another_rank_layout(shapes, said, lora):
    tensors = {f"{NAME}.lora_down.weight": torch.zeros(shapes[0]), f"{NAME}.lora_up.weight": torch.zeros(shapes[1])}
    save_file(tensors | {f"{NAME}.alpha": torch.tensor(1.0)}, lora)
    assert said in refused(lora)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("lora_unet_down_blocks_0_attentions_9_proj_in.lora_down.weight", "belong to no module of SDXL"),
        ("lora_unet_input_blocks_99_1_proj_in.lora_down.weight", "belong to no module of SDXL"),
    ],
)
def test_names_that_match_nothing(names, said, lora):
    save_file({names: torch.zeros(1)}, lora)
    message = refused(lora)
    assert said in message
    assert names in message


def test_one_unmatched_tensor_among_matched_ones(lora):
    save_file(load_file(lora) | {"something.else": torch.zeros(1)}, lora)
    assert "1 of 4 tensors belong to no module of SDXL: something.else" in refused(lora)


def test_a_lora_of_sd2(lora):
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {
        "lora_down.weight": torch.zeros(4, 1024),
        "lora_up.weight": torch.zeros(320, 4),
        "alpha": torch.tensor(1),
    }
    save_file({f"{name}.{key}": tensor for key, tensor in tensors.items()}, lora)
    assert "a LoRA of SD 2.x (its UNet reads text 1024 wide); give one made for SDXL or SD 1.5" in refused(lora)


def test_the_same_module_twice(lora):
    tensors = load_file(lora)
    save_file(tensors | {"unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.zeros(2, 6)}, lora)
    assert "two tensors are the down of" in refused(lora)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file(keep, lora):
    lora.write_bytes(lora.read_bytes()[:keep])
    with pytest.raises(FormatError, match="not a whole safetensors file|an empty file"):
        read_lora(lora)


@pytest.mark.parametrize("name", ["lora.ckpt", "lora.pt", "lora.bin", "disguised.safetensors"])
def test_a_pickle(name, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / name)
    assert "a pickle, which can run any code" in refused(tmp_path / name)


def test_a_header_whose_length_looks_like_a_pickle(lora):
    content = json.dumps({"__metadata__": {"pad": "x"}, "a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})
    lora.write_bytes((0x0280).to_bytes(8, "little") + content.ljust(0x0280).encode())
    assert "belong to no module of SDXL: a;" in refused(lora)


def test_no_such_file_and_no_such_folder(tmp_path):
    assert "no such file" in refused(tmp_path / "absent.safetensors")
    assert "neither pytorch_lora_weights.safetensors nor adapter_config.json" in refused(tmp_path)


def test_no_tensors(tmp_path):
    save_file({}, tmp_path / "empty.safetensors")
    assert "holds no tensor" in refused(tmp_path / "empty.safetensors")


@pytest.mark.parametrize("text", ["{", "[1]", "null", "[" * 100_000])
def test_damaged_settings_of_peft(text, lora):
    save_file(load_file(lora), lora, {"lora_adapter_metadata": text})
    assert "lora_adapter_metadata is damaged" in refused(lora)


@pytest.mark.parametrize(
    "settings",
    [{"lora_alpha": None}, {"lora_alpha": "x"}, {"lora_alpha": 1, "alpha_pattern": {"(": 1}}, {"lora_alpha": [1]},
     {"lora_alpha": 1, "alpha_pattern": [1]}],
)  # fmt: skip
def test_alphas_in_pefts_settings_that_are_none(settings, lora):
    tensors = load_file(lora)
    del tensors[f"{NAME}.alpha"]
    text = json.dumps({f"unet.{name}": value for name, value in settings.items()})
    save_file(tensors, lora, {"lora_adapter_metadata": text})
    assert "the alphas in its settings of peft are damaged" in refused(lora)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("lora_down.weight", (), "neither linear nor convolutional"),
        ("lora_up.weight", (4,), "neither linear nor convolutional"),
        ("alpha", (0,), "alpha is 0 numbers"),
        ("alpha", (2,), "alpha is 2 numbers"),
        ("dora_scale", (0,), "0 magnitudes for 4 rows"),
        ("diff", (), "scalar is no shape of a weight"),
        ("diff_b", (0,), "0 is no shape of a weight"),
        ("lora_mid.weight", (3,), "mid and down"),
        ("lokr_w1", (), "has no lokr_w2_a"),
    ],
)
def test_tensors_of_shapes_that_cannot_be(name, shape, said, lora):
    save_file(load_file(lora) | {f"{NAME}.{name}": torch.ones(shape)}, lora)
    assert said in refused(lora)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ({"sdxl_mel.spec": "{}"}, "spec"),
        ({"sdxl_mel.clip_skip": "two"}, "metadata is damaged"),
        ({"sdxl_mel.base": "[1]"}, "metadata is damaged"),
        ({"sdxl_mel.base": '{"unet":' * 50_000}, "metadata is damaged (nested too deep)"),
        ({"sdxl_mel.record": "{}"}, "metadata is damaged"),
        ({"sdxl_mel.record": "[" * 100_000}, "metadata is damaged"),
        ({"sdxl_mel.spec": "[" * 100_000}, "recursion limit"),
        ({"sdxl_mel.layers_per_block": "0"}, "metadata is damaged"),
        ({"sdxl_mel.guidance": "nan"}, "metadata is damaged"),
    ],
)
def test_damaged_metadata(pairs, said, lora):
    save_file(load_file(lora), lora, pairs)
    assert said in refused(lora)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "trained against changed base weights"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["conv_in"]}, "modules_to_save"),
        ({"peft_type": "LOHA"}, "only LORA is read"),
        ({"auto_mapping": None}, "does not say which model it adapts"),
        ({"auto_mapping": ["x"]}, "does not say which model it adapts"),
    ],
)
def test_peft_folders_that_a_lora_cannot_express(setting, said, tmp_path):
    config = {"peft_type": "LORA", "lora_alpha": 1, "auto_mapping": {"base_model_class": "UNet2DConditionModel"}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | setting))
    save_file({"base_model.model.conv_in.lora_A.weight": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    assert said in refused(tmp_path)


def test_a_peft_folder_nested_too_deep(tmp_path):
    (tmp_path / "adapter_config.json").write_text("[" * 100_000)
    assert "not peft's settings (nested too deep)" in refused(tmp_path)


def test_nothing_or_nan_is_not_written(tmp_path):
    with pytest.raises(InputError, match="no adapter to write"):
        write_lora(tmp_path / "lora.safetensors", Lora({}))
    module = random_module(nn.Linear(6, 4), 2, float("nan"), torch.Generator())
    with pytest.raises(InputError, match="alpha holds NaN"):
        write_lora(tmp_path / "lora.safetensors", Lora({PATH: module}))
    large = random_module(nn.Linear(6, 4), 2, 1.0, torch.Generator())
    large.up.mul_(1e9)
    with pytest.raises(InputError, match="up does not fit into torch.float16"):
        write_lora(tmp_path / "lora.safetensors", Lora({PATH: large}), dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []
