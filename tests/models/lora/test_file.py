"""read(write(x)) = x, and diffusers' own loader as the judge of what was written."""

import json
import math
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from sdxl_mel.models.base import open_base
from sdxl_mel.models.family import ADAPTABLE
from sdxl_mel.models.fuse_verify import probe
from sdxl_mel.models.layouts import Architecture, module_paths
from sdxl_mel.models.lora.file import Lora, LoraHeader, read_lora, write_lora
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import PRESETS
from tests.loras import attach, random_lora_modules, random_module

DIALECTS = ("kohya", "diffusers")
HEADER = LoraHeader(
    spec=PRESETS["mini"],
    anchor="mel spectrogram",
    clip_skip=1,
    base={"unet": "ab" * 32, "text_encoder_2": "cd" * 32},
    record=Record(stage="train", settings={"seed": 3, "text": 'é "quoted"'}, inputs={"cache": "ef" * 32}),
    training={"learning_rate": "0.0001", "loss_type": "huber"},
)
PATHS = [
    ("unet", "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_out.0"),
    ("unet", "up_blocks.0.attentions.2.proj_in"),
    ("text_encoder", "text_model.encoder.layers.0.self_attn.q_proj"),
    ("text_encoder_2", "text_model.encoder.layers.2.mlp.fc2"),
]


def same(one: LoraModule, other: LoraModule) -> bool:
    """Return whether two are equal bit for bit."""
    magnitudes = (one.magnitude is None) == (other.magnitude is None) and (
        one.magnitude is None or torch.equal(one.magnitude, other.magnitude)
    )
    return (
        torch.equal(one.down, other.down) and torch.equal(one.up, other.up) and one.alpha == other.alpha and magnitudes
    )


def as_written(module: LoraModule, dialect: str) -> LoraModule:
    """Return what a file holds of a module: in diffusers' dialect alpha is the rank, and up has the rest."""
    return module.with_alpha(module.rank) if dialect == "diffusers" else module


@st.composite
def modules(draw, dora: bool) -> LoraModule:
    rank, inner, out = (draw(st.integers(1, 5)) for _ in range(3))
    alpha = draw(st.floats(0.0078125, 512, width=32))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    draws = [torch.randn(*shape, generator=generator) for shape in ((rank, inner), (out, rank), (out,))]
    return LoraModule(draws[0], draws[1], alpha, draws[2].abs() + 0.1 if dora else None)


@given(data=st.data(), dialect=st.sampled_from(DIALECTS), dora=st.booleans())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(data, dialect, dora, tmp_path):
    chosen = data.draw(st.lists(st.sampled_from(PATHS), min_size=1, unique=True))
    lora = Lora({path: data.draw(modules(dora)) for path in chosen}, HEADER)
    write_lora(tmp_path / "lora.safetensors", lora, dialect)
    again = read_lora(tmp_path / "lora.safetensors")
    assert again.header == HEADER
    assert again.modules.keys() == lora.modules.keys()
    assert all(same(again.modules[path], as_written(module, dialect)) for path, module in lora.modules.items())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_same_lora_makes_the_same_bytes_and_one_dialect_becomes_the_other(dialect, tmp_path):
    generator = torch.Generator().manual_seed(0)
    lora = Lora({path: random_module(nn.Linear(6, 4), 2, 0.5, generator) for path in PATHS}, HEADER)
    first, second, other = (tmp_path / name / "lora.safetensors" for name in ("first", "second", "other"))
    write_lora(first, lora, dialect)
    write_lora(second, read_lora(first), dialect)
    assert first.read_bytes() == second.read_bytes()
    write_lora(other, read_lora(first), DIALECTS[dialect == "kohya"])
    again = read_lora(other).modules
    assert all(same(as_written(module, "diffusers"), again[path]) for path, module in lora.modules.items())


def test_one_alpha_changes_no_weight():
    generator = torch.Generator().manual_seed(0)
    modules = {path: random_module(nn.Linear(6, 4), 2, 0.3 + i // 2, generator) for i, path in enumerate(PATHS)}
    folded = Lora(modules).with_one_alpha().modules
    assert len({module.alpha for module in folded.values()}) == 1
    for path, module in modules.items():
        torch.testing.assert_close(folded[path].product(), module.product())


@pytest.fixture(scope="module")
def pipeline(tiny_sdxl):
    return StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)


@pytest.fixture
def fresh(pipeline):
    yield pipeline
    pipeline.unload_lora_weights()


@pytest.fixture(scope="module")
def lora(pipeline):
    """Ranks differ by module, alpha is none of them, convolutions are in."""
    modules = random_lora_modules(pipeline, rank=4, alpha=1.5, convolutions=True)
    other = random_lora_modules(pipeline, rank=2, alpha=1.5, convolutions=True)
    return Lora({key: (other if index % 3 else modules)[key] for index, key in enumerate(modules)})


@pytest.fixture(scope="module")
def outputs(tiny_sdxl, lora):
    """Return what our own adapters make of the LoRA."""
    base = open_base(tiny_sdxl, ADAPTABLE)
    attach(base, lora)
    return {part: probe(part, getattr(base, part)) for part in ADAPTABLE}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_diffusers_does_with_our_file_what_our_adapters_do(dialect, tmp_path, fresh, lora, outputs):
    write_lora(tmp_path / "lora.safetensors", lora, dialect)
    fresh.load_lora_weights(tmp_path / "lora.safetensors")
    assert_same_layers(fresh, lora, dialect)
    for part in ADAPTABLE:
        difference = (probe(part, getattr(fresh, part)) - outputs[part]).norm() / outputs[part].norm()
        assert float(difference) <= 1e-5


@pytest.mark.parametrize("dialect", DIALECTS)
def test_alphas_by_module_reach_diffusers_too(dialect, tmp_path, fresh, lora):
    """Under kohya's names only once they are made one: diffusers 0.42 mixes them up."""
    modules = {key: module.with_alpha(1.0 + index % 2) for index, (key, module) in enumerate(lora.modules.items())}
    few = Lora({key: module for key, module in modules.items() if key[0] != "unet" or "mid_block" in key[1]})
    few = few.with_one_alpha() if dialect == "kohya" else few
    write_lora(tmp_path / "lora.safetensors", few, dialect)
    fresh.load_lora_weights(tmp_path / "lora.safetensors")
    assert_same_layers(fresh, few, dialect)


def assert_same_layers(pipeline, lora, dialect):
    loaded = loaded_layers(pipeline)
    assert loaded.keys() == lora.modules.keys()
    for key, (down, up, scale) in loaded.items():
        module = as_written(lora.modules[key], dialect)
        assert torch.equal(down, module.down), key
        assert torch.equal(up, module.up), key
        assert scale == pytest.approx(module.scale), key


def loaded_layers(pipeline):
    found = {}
    for part in ("unet", "text_encoder", "text_encoder_2"):
        for name, layer in getattr(pipeline, part).named_modules():
            if isinstance(layer, LoraLayer):
                path = name if part == "unet" or name.startswith("text_model.") else f"text_model.{name}"
                (adapter,) = layer.scaling
                found[part, path] = (
                    layer.lora_A[adapter].weight,
                    layer.lora_B[adapter].weight,
                    layer.scaling[adapter],
                )
    return found


def test_in_diffusers_dialect_the_scale_is_one_for_those_who_read_no_settings(tmp_path, lora):
    """ComfyUI and diffusers 0.32 take up @ down as it stands, for one rank and for many."""
    for modules in (lora.modules, {key: each for key, each in lora.modules.items() if each.rank == 4}):
        write_lora(tmp_path / "lora.safetensors", Lora(modules), "diffusers")
        tensors = load_file(tmp_path / "lora.safetensors")
        for (part, path), module in modules.items():
            up, down = (tensors[f"{part}.{path}.lora_{letter}.weight"].flatten(1) for letter in "BA")
            torch.testing.assert_close(up @ down, module.product().flatten(1))


def test_rslora_is_converted_to_its_effective_alpha(tmp_path, fresh):
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    config = LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["to_q"], init_lora_weights=False)
    fresh.unet.add_adapter(config)
    fresh.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(fresh.unet),
        unet_lora_adapter_metadata=config.to_dict() | {"target_modules": ["to_q"]},
    )
    lora = read_lora(tmp_path)
    assert len(lora.modules) == 56
    assert {module.scale for module in lora.modules.values()} == {3 / math.sqrt(4)}


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("unet", "mid_block.attentions.0.proj_in"),
        ("text_encoder", "text_model.encoder.layers.0.self_attn.q_proj"),
        ("text_encoder_2", "text_model.encoder.layers.2.self_attn.q_proj"),
    ],
)
def test_dora_survives_in_diffusers(part, path, tmp_path, fresh):
    model = getattr(fresh, part)
    layer = model.get_submodule(module_paths(model, part)[path])
    plain = random_module(layer, 2, 1.0, torch.Generator().manual_seed(0))
    dora = LoraModule(plain.down, plain.up, 1.0, layer.weight.detach().norm(dim=1) * 1.5)
    write_lora(tmp_path / "lora.safetensors", Lora({(part, path): dora}), "diffusers")
    x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(1))
    expected = nn.functional.linear(x, layer.weight + dora.delta(layer.weight.detach()), layer.bias)
    fresh.load_lora_weights(tmp_path / "lora.safetensors")
    found = model.get_submodule(module_paths(model, part)[path])(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_peft_folder_is_read(tmp_path, tiny_sdxl):
    from peft import LoraConfig, get_peft_model

    encoder = open_base(tiny_sdxl, ("text_encoder",)).text_encoder
    config = LoraConfig(
        r=4, lora_alpha=3, rank_pattern={"fc1": 2}, alpha_pattern={"fc1": 5}, target_modules=["q_proj", "fc1"]
    )
    get_peft_model(encoder, config).save_pretrained(tmp_path / "text_encoder")
    for folder in (tmp_path, tmp_path / "text_encoder"):
        modules = read_lora(folder).of("text_encoder")
        assert len(modules) == 6
        assert {(path.rpartition(".")[2], m.rank, m.alpha) for path, m in modules.items()} == {
            ("q_proj", 4, 3.0),
            ("fc1", 2, 5.0),
        }


def test_kohyas_files_name_their_network(tmp_path):
    module = random_module(nn.Linear(6, 4), 2, 0.5, torch.Generator().manual_seed(0))
    write_lora(tmp_path / "mine.safetensors", Lora({PATHS[0]: module}, HEADER))
    with safe_open(tmp_path / "mine.safetensors", "pt") as file:
        metadata, names = file.metadata(), set(file.keys())
    assert metadata["ss_network_dim"] == "2"
    assert metadata["ss_network_alpha"] == "0.5"
    assert metadata["ss_learning_rate"] == "0.0001"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert metadata["modelspec.resolution"] == "256x128"
    prefix = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_out_0"
    assert names == {f"{prefix}.lora_down.weight", f"{prefix}.lora_up.weight", f"{prefix}.alpha"}


def test_a_dora_and_minis_lora_are_called_what_they_are(tmp_path):
    module = random_module(nn.Linear(6, 4), 2, 0.5, torch.Generator().manual_seed(0))
    said = {}
    for name, each, layers in (
        ("plain", module, 2),
        ("dora", replace(module, magnitude=torch.ones(4)), 2),
        ("mini", module, 1),
    ):
        path = tmp_path / f"{name}.safetensors"
        write_lora(path, Lora({PATHS[2]: each}, LoraHeader(architecture=Architecture(SDXL, layers))))
        with safe_open(path, "pt") as file:
            said[name] = file.metadata()
    assert [said[name]["ss_network_module"] for name in said] == ["networks.lora", "lycoris.kohya", "networks.lora"]
    assert json.loads(said["dora"]["ss_network_args"]) == {"algo": "lora", "dora_wd": "True"}
    assert said["plain"]["ss_base_model_version"] == said["dora"]["ss_base_model_version"] == "sdxl_base_v1-0"
    assert "sdxl_base" not in said["mini"]["ss_base_model_version"]
    assert "v1-base" not in said["mini"]["modelspec.architecture"]
