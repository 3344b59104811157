"""A fused model is base + LoRA, in either layout, from either layout, and says what it was made for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.errors import InputError, MismatchError, ResourceError
from sdxl_mel.models import checkpoint_writer
from sdxl_mel.models.base import open_base
from sdxl_mel.models.checkpoint import open_single_file
from sdxl_mel.models.fuse_verify import differences, probe
from sdxl_mel.models.header import header_files, read_model_header
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.models.lora.scaled import ScaledLora, read_loras
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages.fuse import Config, run
from tests.checkpoints import write_single_file
from tests.loras import random_lora_modules, random_modules

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
SCALE = 0.8
HEADER = LoraHeader(spec=PRESETS["mini"], anchor="mel spectrogram", clip_skip=1)
PREFIX = "conditioner.embedders."


@pytest.fixture(scope="module")
def pipeline(tiny_sdxl):
    return StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)


@pytest.fixture(scope="module")
def modules(pipeline):
    return random_lora_modules(pipeline, rank=4, alpha=1.5, convolutions=True)


@pytest.fixture(scope="module")
def lora(modules, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "lora.safetensors"
    write_lora(path, Lora(modules, HEADER))
    return path


@pytest.fixture(scope="module")
def folder(tiny_sdxl, lora, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("folder") / "fused"
    run(Config(base=str(tiny_sdxl), lora=(str(lora),), scale=(SCALE,), out=out))
    return out


@pytest.fixture(scope="module")
def single(tiny_sdxl, lora, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("single") / "fused.safetensors"
    run(Config(base=str(tiny_sdxl), lora=(f"{lora}:{SCALE}",), out=out))
    return out


def weights_of(pipeline) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": t for part in PARTS for name, t in getattr(pipeline, part).state_dict().items()}


def product(module: LoraModule) -> torch.Tensor:
    flat = module.up.double().flatten(1) @ module.down.double().flatten(1)
    return (flat * module.alpha / module.rank).reshape(module.weight_shape)


def expected(pipeline, modules, scale: float = SCALE) -> dict[str, torch.Tensor]:
    """Return base + LoRA in float64, straight from the definition."""
    weights = {name: tensor.double() for name, tensor in weights_of(pipeline).items()}
    for (part, path), module in modules.items():
        name = f"{part}.{path}.weight"
        name = name if name in weights else name.replace("text_model.", "")
        weights[name] = weights[name] + scale * product(module)
    return weights


def test_the_folder_is_base_plus_lora_in_fp32(folder, pipeline, modules):
    fused = weights_of(StableDiffusionXLPipeline.from_pretrained(folder))
    for name, exact in expected(pipeline, modules).items():
        assert float((fused[name].double() - exact).norm()) <= 1e-7 * float(exact.norm()), name


def test_the_single_file_loads_with_the_tensors_of_the_folder(single, folder, tiny_sdxl):
    loaded = weights_of(StableDiffusionXLPipeline.from_single_file(single, config=str(tiny_sdxl)))
    fused = weights_of(StableDiffusionXLPipeline.from_pretrained(folder))
    assert loaded.keys() == fused.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in fused.items())
    projection = fused["text_encoder_2.text_projection.weight"]
    assert not torch.equal(projection, projection.T)


def test_a_single_file_is_a_base_too_and_keeps_what_only_it_has(single, lora, modules, tiny_sdxl, tmp_path):
    tensors = load_file(single)
    position = torch.arange(77)[None]
    extra = {
        f"{PREFIX}1.model.logit_scale": torch.tensor(4.25),
        f"{PREFIX}0.transformer.text_model.embeddings.position_ids": position,
        "betas": torch.rand(3),
    }
    save_file(tensors | extra, tmp_path / "base.safetensors")
    back = tmp_path / "back.safetensors"
    run(Config(base=str(tmp_path / "base.safetensors"), lora=(str(lora),), scale=(-SCALE,), out=back))
    restored = load_file(back)
    assert restored.keys() == (tensors | extra).keys()
    assert all(torch.equal(restored[name], tensor) for name, tensor in extra.items())
    original = weights_of(StableDiffusionXLPipeline.from_pretrained(tiny_sdxl))
    loaded = weights_of(StableDiffusionXLPipeline.from_single_file(back, config=str(tiny_sdxl)))
    for name, tensor in original.items():
        torch.testing.assert_close(loaded[name], tensor, atol=1e-6, rtol=0)


def test_a_single_file_becomes_a_folder(single, lora, tiny_sdxl, tmp_path):
    out = tmp_path / "folder"
    run(Config(base=str(single), lora=(str(lora),), scale=(0.0,), out=out, configs=tiny_sdxl))
    loaded = weights_of(StableDiffusionXLPipeline.from_pretrained(out))
    fused = weights_of(StableDiffusionXLPipeline.from_single_file(single, config=str(tiny_sdxl)))
    assert all(torch.equal(loaded[name], tensor) for name, tensor in fused.items())


def test_several_loras_add_up_each_at_its_scale(tiny_sdxl, lora, pipeline, modules, tmp_path):
    other = random_lora_modules(pipeline, rank=1, alpha=1.0)
    write_lora(tmp_path / "other.safetensors", Lora(other))
    run(Config(base=str(tiny_sdxl), lora=(f"{lora}:0.5", f"{tmp_path}/other.safetensors:-1.5"), out=tmp_path / "both"))
    fused = weights_of(StableDiffusionXLPipeline.from_pretrained(tmp_path / "both"))
    once, twice = expected(pipeline, modules, 0.5), expected(pipeline, other, -1.5)
    for name, tensor in weights_of(pipeline).items():
        torch.testing.assert_close(fused[name].double(), once[name] + twice[name] - tensor, atol=1e-6, rtol=1e-6)


def test_fp16_loses_what_the_report_says(tiny_sdxl, modules, tmp_path):
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, torch_dtype=torch.float16)
    pipeline.save_pretrained(tmp_path / "base")
    small = {key: LoraModule(m.down, m.up * 0.01, m.alpha) for key, m in modules.items()}
    write_lora(tmp_path / "lora.safetensors", Lora(small))
    config = Config(base=str(tmp_path / "base"), lora=(str(tmp_path / "lora.safetensors"),), out=tmp_path / "fused")
    report = run(config)
    assert report.dtype == "fp16"
    fused = weights_of(StableDiffusionXLPipeline.from_pretrained(tmp_path / "fused", torch_dtype=torch.float16))
    before, after = weights_of(pipeline), expected(pipeline, small, 1.0)
    changed = [name for name in before if not torch.equal(after[name], before[name].double())]
    lost = sum(float((fused[name].double() - after[name]).square().sum()) for name in changed)
    change = sum(float((after[name] - before[name].double()).square().sum()) for name in changed)
    assert len(changed) == len(small)
    assert report.lost == pytest.approx((lost / change) ** 0.5, rel=1e-3)
    assert 0.001 < report.lost < 0.5
    assert sum(block.tensors for block in report.blocks) == len(small)


def test_verify_finds_base_plus_lora(tiny_sdxl, folder, lora):
    gap = differences(str(tiny_sdxl), folder, read_loras([f"{lora}:{SCALE}"]), None)
    assert gap.keys() == {"unet", "text_encoder", "text_encoder_2"}
    assert max(gap.values()) <= 2e-6
    ((path, whole, _),) = read_loras([str(lora)])
    weaker = Lora({key: module for key, module in whole.modules.items() if key[0] == "text_encoder"})
    assert differences(str(tiny_sdxl), folder, [ScaledLora(path, weaker, 0.7)], None)["text_encoder"] > 1e-3


def test_generate_needs_nothing_else(folder, single, tiny_sdxl):
    for out in (folder, single):
        header = read_model_header(out)
        assert (header.spec, header.anchor, header.clip_skip) == (HEADER.spec, HEADER.anchor, HEADER.clip_skip)
        assert header.record.settings["scale"] == [SCALE]
        assert open_base(out, parts=(), config=tiny_sdxl).spec == HEADER.spec
    assert read_model_header(tiny_sdxl) is None


def test_the_guidance_of_the_base_stays(tiny_sdxl, lora, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_sdxl, base)
    for name, content in header_files(LoraHeader(spec=HEADER.spec, drawing=Drawing(guidance=2.5))).items():
        (base / name).write_bytes(content)
    for out in (tmp_path / "fused", tmp_path / "fused.safetensors"):
        run(Config(base=str(base), lora=(str(lora),), out=out))
        assert read_model_header(out).drawing.guidance == 2.5


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_command_makes_the_same_bytes(threads, single, folder, tiny_sdxl, lora, tmp_path):
    """Of one thread and of several, which hash the base while others write; the record has the hashes all the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for out in (tmp_path / "fused.safetensors", tmp_path / "fused"):
            run(Config(base=str(tiny_sdxl), lora=(f"{lora}:{SCALE}",), out=out))
    finally:
        torch.set_num_threads(before)
    assert (tmp_path / "fused.safetensors").read_bytes() == single.read_bytes()
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = {path: (tmp_path / "fused" / path).read_bytes() for path in files}
    assert again == files
    hashes = {f"base {part}": identity for part, identity in open_base(str(tiny_sdxl), ()).identity.items()}
    for fused in (single, folder):
        assert read_model_header(fused).record.inputs.items() >= hashes.items()


def test_a_public_base_is_fused_without_transformers_and_diffusers(tiny_sdxl, lora, tmp_path):
    base = write_single_file(tiny_sdxl, tmp_path / "base.safetensors")
    shutil.rmtree(base.with_suffix(""))  # its configs: what it lacks is public
    words = ["fuse", "--base", str(base), "--lora", str(lora), "--out", str(tmp_path / "fused.safetensors")]
    script = (
        "import sys\nfrom sdxl_mel.cli import main\n"
        f"assert main({words!r}) == 0\n"
        "assert not {'transformers', 'diffusers', 'peft', 'accelerate', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_comfyui_finds_a_place_for_every_tensor(single, lora):
    """Its rules for names, from comfy/lora.py: model_lora_keys_unet and model_lora_keys_clip."""
    unet = "model.diffusion_model."
    names = [name.removesuffix(".weight") for name in load_file(single) if name.endswith(".weight")]
    places = {f"lora_unet_{name.removeprefix(unet).replace('.', '_')}" for name in names if name.startswith(unet)}
    leaves = [*(f"self_attn_{leaf}_proj" for leaf in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2"]
    for encoder in ("lora_te1", "lora_te2"):
        places |= {f"{encoder}_text_model_encoder_layers_{n}_{leaf}" for n in range(32) for leaf in leaves}
    assert {name.split(".")[0] for name in load_file(lora)} <= places


@pytest.mark.parametrize("name", ["fused", "fused.safetensors"])
@pytest.mark.parametrize("after", [1, 900])
def test_killed_at_any_moment_it_leaves_nothing_that_loads(name, after, tiny_sdxl, lora, tmp_path, monkeypatch):
    """What lies on the disk in the middle of writing is what a kill would leave."""
    from sdxl_mel.models.fuse import FusedWeights

    made, put = [], FusedWeights.put

    def interrupted(self, param, out):
        made.append(param)
        if len(made) > after:
            shutil.copytree(tmp_path / "work", tmp_path / "left", dirs_exist_ok=True)
            raise KeyboardInterrupt
        return put(self, param, out)

    monkeypatch.setattr(FusedWeights, "put", interrupted)
    (tmp_path / "work").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run(Config(base=str(tiny_sdxl), lora=(str(lora),), out=tmp_path / "work" / name))
    assert list((tmp_path / "work").iterdir()) == []
    assert not (tmp_path / "left" / name).exists()
    assert not list((tmp_path / "left").rglob("model_index.json"))
    for left in (tmp_path / "left").glob(".*.tmp"):
        if left.is_file():
            with pytest.raises(SafetensorError), safe_open(left, "pt"):
                pass


def test_too_little_space_is_found_before_writing(tiny_sdxl, lora, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(checkpoint_writer.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(checkpoint_writer, "write_tensors", lambda *_: pytest.fail("it began to write"))
    with pytest.raises(ResourceError, match="needs 0.03 GB and its disk has 0.00 GB free"):
        run(Config(base=str(tiny_sdxl), lora=(str(lora),), out=tmp_path / "fused.safetensors"))


def test_bf16_is_refused_unless_forced(tiny_sdxl, lora, tmp_path):
    config = Config(base=str(tiny_sdxl), lora=(str(lora),), out=tmp_path / "fused.safetensors", dtype="bf16")
    with pytest.raises(InputError, match="bf16 loses"):
        run(config)
    report = run(config.model_copy(update={"force_bf16": True}))
    assert report.dtype == "bf16"
    unet = ("unet", "conv_in.weight")
    assert open_single_file(tmp_path / "fused.safetensors").type_of(unet).dtype == torch.bfloat16


def test_two_specs_do_not_meet(tiny_sdxl, lora, modules, tmp_path):
    write_lora(tmp_path / "other.safetensors", Lora(modules, LoraHeader(spec=PRESETS["std"])))
    with pytest.raises(MismatchError, match="sample_rate 16000 against 32000"):
        run(Config(base=str(tiny_sdxl), lora=(str(lora), str(tmp_path / "other.safetensors")), out=tmp_path / "fused"))


def test_one_layer_per_block_renumbers_the_blocks(tiny_sdxl, tmp_path):
    """The mini base has one layer per block where SDXL has two: kohya's and the checkpoint's numbers depend on it."""
    base = tmp_path / "base"
    shutil.copytree(tiny_sdxl, base)
    config = UNet2DConditionModel.load_config(base / "unet") | {
        "layers_per_block": 1,
        "transformer_layers_per_block": [1, 1, 1],
    }
    shutil.rmtree(base / "unet")
    UNet2DConditionModel.from_config(config).save_pretrained(base / "unet")
    pipeline = StableDiffusionXLPipeline.from_pretrained(base)
    modules = random_modules("unet", pipeline.unet, rank=2, alpha=1.0, convolutions=True)
    lora = tmp_path / "lora.safetensors"
    write_lora(lora, Lora(modules, LoraHeader(architecture=Architecture(SDXL, 1))))
    for out in ("fused", "fused.safetensors"):
        run(Config(base=str(base), lora=(str(lora),), out=tmp_path / out))
    fused = weights_of(StableDiffusionXLPipeline.from_pretrained(tmp_path / "fused"))
    single = StableDiffusionXLPipeline.from_single_file(tmp_path / "fused.safetensors", config=str(base))
    loaded = weights_of(single)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in fused.items())
    pipeline.load_lora_weights(lora)
    gap = probe("unet", pipeline.unet) - probe("unet", single.unet)
    assert float(gap.norm() / probe("unet", single.unet).norm()) <= 1e-5


def test_what_is_not_used_of_a_lora_and_what_was_taken_for_granted_is_reported(tiny_sdxl, lora, tmp_path):
    tensors = {name: tensor for name, tensor in load_file(lora).items() if not name.endswith(".alpha")}
    foreign = tmp_path / "foreign.safetensors"
    save_file(tensors | {"bundle_emb.word.clip_l": torch.zeros(2, 8)}, foreign)
    report = run(Config(base=str(tiny_sdxl), lora=(str(foreign), str(lora)), out=tmp_path / "fused"))
    assert [each.what for each in report.skipped] == [str(foreign)]
    assert "bundle_emb.word.clip_l are embeddings" in report.skipped[0].why
    assert any(f"{foreign}: " in note and "hold no alpha" in note for note in report.notes)
    assert report.exit_code == 3
