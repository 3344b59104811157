"""Bases as other programs leave them: read, or refused with the true reason."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdxl_mel.errors import FormatError, InputError, MissingError
from sdxl_mel.models.base import open_base, open_checkpoint
from sdxl_mel.models.family import PARTS
from sdxl_mel.models.lora.file import Lora, write_lora
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.stages.fuse import Config, run
from tests.checkpoints import edit_json, write_single_file

OPEN_CLIP = "conditioner.embedders.1.model."
UNET = "model.diffusion_model."


@pytest.fixture
def copy(tiny_sdxl: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_sdxl, tmp_path / "copy"))


@pytest.fixture(scope="module")
def single(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_single_file(tiny_sdxl, tmp_path_factory.mktemp("single") / "model.safetensors")


def changed(single: Path, path: Path, change: object) -> Path:
    tensors = load_file(single)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def weights(folder: Path, part: str) -> Path:
    return next((folder / part).glob("*.safetensors"))


def shard(file: Path, variant: str = "") -> None:
    """Split a file in two with an index, as save_pretrained names them."""
    tensors = load_file(file)
    names = sorted(tensors)
    stem = file.name.removesuffix(".safetensors")
    halves = {
        f"{stem}-0000{number}-of-00002{variant}.safetensors": part
        for number, part in enumerate((names[::2], names[1::2]), 1)
    }
    for name, part in halves.items():
        save_file({key: tensors[key] for key in part}, file.with_name(name), metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: name for name, part in halves.items() for key in part}}
    file.with_name(f"{stem}.safetensors.index{variant}.json").write_text(json.dumps(index))


def test_a_projection_under_a_linears_name(single: Path, tiny_sdxl: Path, tmp_path: Path) -> None:
    def as_linear(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{OPEN_CLIP}text_projection.weight"] = tensors.pop(f"{OPEN_CLIP}text_projection").T

    file = changed(single, tmp_path / "playground.safetensors", as_linear)
    base = open_base(file, ("text_encoder_2",), config=tiny_sdxl)
    assert base.identity == open_base(tiny_sdxl, ("text_encoder_2",)).identity
    module = LoraModule(torch.ones(1, 32), torch.zeros(64, 1), 1.0)
    write_lora(tmp_path / "l.safetensors", Lora({("text_encoder", "text_model.encoder.layers.0.mlp.fc1"): module}))
    for out in ("fused", "fused.safetensors"):
        run(Config(base=str(file), lora=(str(tmp_path / "l.safetensors"),), out=tmp_path / out, configs=tiny_sdxl))
        again = open_base(tmp_path / out, ("text_encoder_2",), config=tiny_sdxl)
        assert again.identity == base.identity


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_an_index_wins_over_a_whole_file_beside_it(part: str, copy: Path, tiny_sdxl: Path) -> None:
    file = weights(copy, part)
    shard(file)
    stale = {name: torch.zeros_like(tensor) for name, tensor in load_file(file).items()}
    save_file(stale, file, metadata={"format": "pt"})
    assert open_base(copy, (part,)).identity == open_base(tiny_sdxl, (part,)).identity


def test_shards_of_which_one_is_gone(copy: Path) -> None:
    file = weights(copy, "unet")
    shard(file)
    file.unlink()
    next((copy / "unet").glob("*-00002-of-*")).unlink()
    with pytest.raises(FormatError, match="names .*-00002-of-00002.safetensors, which is not there; copy the folder"):
        open_base(copy, ("unet",))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("unet/config.json", {"block_out_channels": "wide"}),
        ("unet/config.json", {"attention_head_dim": 0}),
        ("unet/config.json", {"addition_time_embed_dim": None}),
        ("text_encoder/config.json", {"hidden_size": None}),
        ("text_encoder/config.json", {"num_hidden_layers": "three"}),
        ("vae/config.json", {"block_out_channels": 5}),
        ("vae/config.json", {"norm_num_groups": 0}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "none"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "many"}),
        ("scheduler/scheduler_config.json", {"_class_name": "AutoencoderKL"}),
        ("unet/diffusion_pytorch_model.safetensors.index.json", {"weight_map": [1]}),
        ("unet/diffusion_pytorch_model.safetensors.index.json", {"weight_map": {"x": 1}}),
    ],
)
def test_damaged_numbers_are_told_in_one_line(file: str, change: dict[str, object], copy: Path) -> None:
    if not (copy / file).is_file():
        (copy / file).write_text("{}")
    edit_json(copy / file, **change)
    with pytest.raises((InputError, MissingError)) as caught:
        open_base(copy)
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)


def test_a_config_nested_too_deep(copy: Path) -> None:
    (copy / "unet/config.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match="not JSON: nested too deep"):
        open_base(copy, ("unet",))


@pytest.mark.parametrize("variant", ["bf16", "fp16", "fp32", "ema"])
@pytest.mark.parametrize("sharded", [False, True])
def test_variants_by_any_name(variant: str, sharded: bool, copy: Path, tiny_sdxl: Path) -> None:
    for part in ("unet", "text_encoder_2"):
        file = weights(copy, part)
        if sharded:
            shard(file, f".{variant}")
            file.unlink()
        else:
            file.rename(file.with_name(f"{file.stem}.{variant}.safetensors"))
    parts = ("unet", "text_encoder_2")
    assert open_base(copy, parts).identity == open_base(tiny_sdxl, parts).identity


def test_of_several_variants_full_precision_is_read_and_the_average(copy: Path, tiny_sdxl: Path) -> None:
    file = weights(copy, "unet")
    for variant in ("fp16", "bf16", "non_ema"):
        save_file(
            {name: torch.zeros(1) for name in load_file(file)}, file.with_name(f"{file.stem}.{variant}.safetensors")
        )
    assert open_base(copy, ("unet",)).identity == open_base(tiny_sdxl, ("unet",)).identity


@pytest.mark.parametrize("kind", ["bin", "ckpt", "pt"])
def test_a_folder_of_pickles_is_refused_as_that(kind: str, copy: Path) -> None:
    file = weights(copy, "unet")
    file.rename(file.with_suffix(f".{kind}"))
    with pytest.raises(InputError, match=rf"unet/.*\.{kind}: a pickle.*no \.safetensors beside it; convert it"):
        open_base(copy)


@pytest.mark.parametrize(("part", "words"), [("unet", "a UNet2DConditionModel"), ("text_encoder", "CLIPTextModel")])
def test_one_part_of_a_folder_alone(part: str, words: str, tiny_sdxl: Path) -> None:
    with pytest.raises(InputError, match=f"this is .*{words}"):
        open_base(tiny_sdxl / part)


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        (UNET, "a UNet alone, without text encoders and VAE"),
        ("diffusion_model.", "a UNet alone, without text encoders and VAE"),
        ("", "a UNet alone, without text encoders and VAE"),
    ],
)
def test_a_unet_alone(prefix: str, words: str, single: Path, tmp_path: Path) -> None:
    tensors = {prefix + n.removeprefix(UNET): t for n, t in load_file(single).items() if n.startswith(UNET)}
    save_file(tensors, tmp_path / "unet.safetensors")
    with pytest.raises(InputError, match=f"this is {words}; needed is"):
        open_base(tmp_path / "unet.safetensors")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["unet.conv_in.weight"], "a UNet alone in diffusers' layout"),
        (["double_blocks.0.img_attn.proj.weight"], "Flux"),
        (["model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight"], "SD 3"),
        (["conditioner.embedders.1.model.ln_final.weight"], "SDXL without one of its text encoders"),
        (["unet.mid_block.attentions.0.proj_in.lora_A.weight"], "a LoRA, not a base model"),
        (["lycoris_mid_block_attentions_0_proj_in.lokr_w1"], "a LoRA, not a base model"),
    ],
)
def test_other_files_by_their_names(names: list[str], words: str, tmp_path: Path) -> None:
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=f"this is {words}; needed is"):
        open_base(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{UNET}out.2.weight_scale", "ComfyUI's comfy_quant"),
        (f"{UNET}out.2.comfy_quant", "ComfyUI's comfy_quant"),
        (f"{UNET}out.2.weight.absmax", "quantised by bitsandbytes"),
        ("edm_mean", r"Playground v2\.5"),
        ("edm_vpred.sigma_max", "CosXL"),
    ],
)
def test_what_is_no_plain_checkpoint_is_refused_by_name(name: str, words: str, single: Path, tmp_path: Path) -> None:
    file = changed(single, tmp_path / "x.safetensors", lambda tensors: tensors.update({name: torch.zeros(1)}))
    with pytest.raises(InputError, match=f"this is SDXL .*{words}.*; give its fp16"):
        open_base(file)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_scaled_fp8_is_read(shape: tuple[int, ...], single: Path, tiny_sdxl: Path, tmp_path: Path) -> None:
    """A weight is its float8 times its scale, to the digits that float8 has."""
    scales = {}

    def to_scaled_fp8(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith(".weight") and tensors[name].ndim > 1]:
            scale = tensors[name].abs().max().float() / 448
            tensors[name] = (tensors[name].float() / scale).to(torch.float8_e4m3fn)
            stem = name.removesuffix("weight")
            scales[name] = tensors[f"{stem}scale_weight"] = scale.reshape(shape)
            tensors[f"{stem}scale_input"] = torch.ones(())
        tensors[f"{UNET}scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)

    file = changed(single, tmp_path / "x.safetensors", to_scaled_fp8)
    read, exact = open_base(file, config=tiny_sdxl), open_base(tiny_sdxl)
    for part in PARTS:
        own = exact.models[part].state_dict()
        for name, tensor in read.models[part].state_dict().items():
            largest = float(own[name].float().abs().max())
            torch.testing.assert_close(tensor.float(), own[name].float(), rtol=2**-4, atol=largest * 2**-9)
    stored = load_file(file)[f"{UNET}input_blocks.0.0.weight"].float() * scales[f"{UNET}input_blocks.0.0.weight"]
    assert torch.equal(read.unet.conv_in.weight, stored.half().float())
    checkpoint, _ = open_checkpoint(str(file), tiny_sdxl, whole=False)
    assert not [name for name in checkpoint.rest if "scale_" in name or "scaled" in name], (
        "a fused file has none of them"
    )


def test_a_weight_of_several_scales_is_refused(single: Path, tiny_sdxl: Path, tmp_path: Path) -> None:
    scale = {f"{UNET}out.2.scale_weight": torch.ones(4)}
    file = changed(single, tmp_path / "x.safetensors", lambda tensors: tensors.update(scale))
    with pytest.raises(FormatError, match=r"out.2.scale_weight has the shape \(4,\), expected one number"):
        open_base(file, config=tiny_sdxl)


def test_plain_fp8_is_read(single: Path, tiny_sdxl: Path, tmp_path: Path) -> None:
    def to_fp8(tensors: dict[str, torch.Tensor]) -> None:
        tensors |= {n: t.to(torch.float8_e4m3fn) for n, t in tensors.items() if n.startswith(UNET)}

    unet = open_base(changed(single, tmp_path / "x.safetensors", to_fp8), ("unet",), config=tiny_sdxl).unet
    exact = open_base(tiny_sdxl, ("unet",)).unet.conv_in.weight
    assert torch.equal(unet.conv_in.weight, exact.to(torch.float8_e4m3fn).float())


@pytest.mark.parametrize(
    "name", ["first_stage_model.loss.logvar", "first_stage_model.loss.discriminator.main.0.weight", "model_ema.decay"]
)
def test_what_training_left_behind_is_no_part_of_a_model(
    name: str, single: Path, tiny_sdxl: Path, tmp_path: Path
) -> None:
    file = changed(single, tmp_path / "x.safetensors", lambda tensors: tensors.update({name: torch.zeros(1)}))
    base = open_base(file, ("vae",), config=tiny_sdxl)
    assert base.identity == open_base(tiny_sdxl, ("vae",)).identity
    vae = {n: t for n, t in load_file(file).items() if n.startswith("first_stage_model.")}
    for prefix in ("first_stage_model.", "", "vae."):
        named = {prefix + n.removeprefix("first_stage_model."): t for n, t in vae.items()}
        save_file(named, tmp_path / "vae.safetensors")
        assert open_base(tiny_sdxl, ("vae",), vae=tmp_path / "vae.safetensors").identity["vae"] == base.identity["vae"]


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_a_missing_tokenizer_is_clips_where_that_fits(name: str, copy: Path) -> None:
    encoder = name.replace("tokenizer", "text_encoder")
    shutil.rmtree(copy / name)
    with pytest.raises(InputError, match=f"lacks {name}/, and its {encoder} reads 514 tokens, CLIP has 49408"):
        open_base(copy, (encoder,))
    edit_json(copy / encoder / "config.json", vocab_size=49408)
    file = weights(copy, encoder)
    tensors = load_file(file)
    key = next(key for key in tensors if key.endswith("token_embedding.weight"))
    save_file(tensors | {key: torch.zeros(49408, tensors[key].shape[1])}, file, metadata={"format": "pt"})
    tokenizer = open_base(copy, (encoder,)).tokenizers[name]
    assert tokenizer("hello world").input_ids == [49406, 3306, 1002, 49407]
    assert tokenizer.pad_token_id == (49407 if name == "tokenizer" else 0)


def test_text_encoders_and_unet_of_two_families(single: Path, tiny_sd15: Path, tmp_path: Path) -> None:
    sd15 = load_file(write_single_file(tiny_sd15, tmp_path / "sd15.safetensors"))
    texts = {n: t for n, t in sd15.items() if n.startswith("cond_stage_model.")}
    both = changed(single, tmp_path / "both.safetensors", lambda tensors: tensors.update(texts))
    assert open_base(both, ()).family.name == "sdxl"
    sdxl_texts = {n: t for n, t in load_file(single).items() if n.startswith("conditioner.")}
    save_file(sd15 | sdxl_texts, tmp_path / "other.safetensors")
    assert open_base(tmp_path / "other.safetensors", ()).family.name == "sd15"
    save_file({n: t for n, t in (sd15 | sdxl_texts).items() if n not in texts}, tmp_path / "mixed.safetensors")
    with pytest.raises(InputError, match="has the text encoders of SDXL, and a UNet that is told no sizes"):
        open_base(tmp_path / "mixed.safetensors", ())


@pytest.mark.parametrize(("channels", "words"), [(8, "a model of SDXL with 8 channels in"), (9, "an inpainting model")])
def test_a_unet_of_other_channels(channels: int, words: str, single: Path, tmp_path: Path) -> None:
    entry = {f"{UNET}input_blocks.0.0.weight": torch.zeros(32, channels, 3, 3)}
    with pytest.raises(InputError, match=f"this is {words}"):
        open_base(changed(single, tmp_path / "x.safetensors", lambda tensors: tensors.update(entry)))
