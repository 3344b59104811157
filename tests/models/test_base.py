"""Loading a base: a folder and a single file are the same model, and what is no base is named."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from sdxl_mel.assets import MINI
from sdxl_mel.errors import FormatError, InputError, MissingError
from sdxl_mel.models.base import open_base
from sdxl_mel.models.families import family_of_configs
from sdxl_mel.models.family import PARTS
from sdxl_mel.sound.melspec import PRESETS
from tests.checkpoints import edit_json, vae_tensors, weights, write_single_file


@pytest.fixture(scope="module")
def single(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_single_file(tiny_sdxl, tmp_path_factory.mktemp("single") / "model.safetensors")


@pytest.fixture
def copy(tiny_sdxl: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_sdxl, tmp_path / "copy"))


def test_folder_holds_what_the_pipeline_loads(tiny_sdxl: Path) -> None:
    base, pipeline = open_base(tiny_sdxl), StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    for part in PARTS:
        ours, theirs = getattr(base, part).state_dict(), getattr(pipeline, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        assert not any(parameter.requires_grad for parameter in getattr(base, part).parameters())
    assert type(base.scheduler) is type(pipeline.scheduler)
    assert base.spec is None


def test_single_file_is_the_same_model(tiny_sdxl: Path, single: Path) -> None:
    one, other = open_base(tiny_sdxl), open_base(single)
    for part in PARTS:
        ours, theirs = getattr(other, part).state_dict(), getattr(one, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert one.identity == other.identity
    assert set(one.identity) == set(PARTS)


@pytest.mark.skipif(not MINI.is_dir(), reason="the weights of mini are not in this checkout")
def test_mini_is_the_same_model_in_every_form(tmp_path: Path) -> None:
    file = write_single_file(MINI, tmp_path / "mini.safetensors", layers_per_block=1)
    named, folder, single = (open_base(name) for name in ("mini", MINI, file))
    assert named.identity == folder.identity == single.identity
    assert named.spec == PRESETS["mini"]
    pipeline = StableDiffusionXLPipeline.from_pretrained(MINI, dtype=torch.float32)
    for part in PARTS:
        theirs = getattr(pipeline, part).state_dict()
        for base in (named, single):
            ours = getattr(base, part).state_dict()
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key].float()) for key in theirs)


def test_parts_on_demand_and_dtype(tiny_sdxl: Path) -> None:
    base = open_base(tiny_sdxl, ("unet", "vae"), torch.bfloat16)
    assert base.text_encoder is None and base.tokenizer is None
    assert base.unet.dtype == torch.bfloat16
    assert base.vae.dtype == torch.float32
    assert set(base.identity) == {"unet", "vae"}


def test_identity_follows_the_weights_alone(tiny_sdxl: Path, copy: Path) -> None:
    before = open_base(copy, ("vae",)).identity["vae"]
    assert before == open_base(tiny_sdxl, ("vae",)).identity["vae"]
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file(tensors, file, metadata={"note": "the same weights"})
    assert open_base(copy, ("vae",)).identity["vae"] == before
    tensors["decoder.conv_in.bias"][0] += 1
    save_file(tensors, file)
    assert open_base(copy, ("vae",)).identity["vae"] != before


def test_fp16_variant_and_spec_of_a_folder(copy: Path) -> None:
    unet = copy / "unet" / "diffusion_pytorch_model.safetensors"
    unet.rename(unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
    (copy / "melspec.json").write_text(PRESETS["mini"].to_json())
    base = open_base(copy, ("unet",))
    assert base.unet is not None
    assert base.spec == PRESETS["mini"]


@pytest.mark.parametrize("layout", ["folder", "original", "original with prefix", "diffusers", "pipeline"])
def test_another_vae(tiny_sdxl: Path, tmp_path: Path, layout: str) -> None:
    changed = Path(shutil.copytree(tiny_sdxl, tmp_path / "changed"))
    stored = weights(changed, "vae")
    stored["encoder.conv_in.bias"] += 1
    save_file(stored, changed / "vae" / "diffusion_pytorch_model.safetensors")
    file = tmp_path / "vae.safetensors"
    match layout:
        case "folder":
            given = changed / "vae"
        case "pipeline":
            given = changed
        case "diffusers":
            given = changed / "vae" / "diffusion_pytorch_model.safetensors"
        case _:
            prefix = "first_stage_model." if "prefix" in layout else ""
            save_file({prefix + key: value.contiguous() for key, value in vae_tensors(changed).items()}, file)
            given = file
    base = open_base(tiny_sdxl, ("vae",), vae=given)
    assert torch.equal(base.vae.encoder.conv_in.bias, stored["encoder.conv_in.bias"])
    assert base.identity["vae"] == open_base(changed, ("vae",)).identity["vae"]


@pytest.mark.parametrize(
    ("unet", "pipeline", "words"),
    [
        ({"cross_attention_dim": 1024, "in_channels": 4}, "StableDiffusionPipeline", "SD 2.x"),
        (
            {"cross_attention_dim": 768, "in_channels": 9},
            "StableDiffusionInpaintPipeline",
            "inpainting model of SD 1.5",
        ),
        ({"in_channels": 9, "addition_embed_type": "text_time"}, "StableDiffusionXLInpaintPipeline", "of SDXL"),
        (
            {"in_channels": 4, "addition_embed_type": "text_time", "cross_attention_dim": 1280},
            "StableDiffusionXLImg2ImgPipeline",
            "the SDXL refiner",
        ),
        ({}, "FluxPipeline", "a FluxPipeline"),
        ({}, "", "no diffusers pipeline"),
    ],
)
def test_other_models_are_named(unet: dict[str, object], pipeline: str, words: str) -> None:
    with pytest.raises(InputError, match=rf"{words}.*needed is SDXL 1\.0 base") as caught:
        family_of_configs({"unet": unet} if unet else {}, pipeline, "models/other")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["latents_mean", "latents_std"])
def test_a_vae_with_its_own_statistics_of_latents_is_refused(copy: Path, key: str) -> None:
    """Its latents would be cached, trained and decoded with one factor only."""
    edit_json(copy / "vae" / "config.json", **{key: [0.5, 1.0, 1.5, 2.0]})
    with pytest.raises(InputError, match=rf"its VAE has {key}; needed is one that scales its latents by one factor"):
        open_base(copy)


def test_widths_that_do_not_fit_are_named(copy: Path) -> None:
    edit_json(copy / "unet" / "config.json", cross_attention_dim=96)
    with pytest.raises(InputError, match="attends to 96 channels, its text encoders give 80"):
        open_base(copy)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"cond_stage_model.model.ln_final.weight": (4,)}, "SD 2.x"),
        ({"conditioner.embedders.0.model.ln_final.weight": (4,)}, "the SDXL refiner"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (8, 9, 3, 3)}, "an inpainting model of SD 1.5"),
        ({"lora_unet_x.lora_down.weight": (4, 4)}, "a LoRA, not a base model"),
        ({"encoder.conv_in.weight": (4, 3, 3, 3)}, "a VAE alone"),
        ({"something": (1,)}, "no checkpoint in the original layout"),
    ],
)
def test_other_single_files_are_named(tmp_path: Path, keys: dict[str, tuple[int, ...]], words: str) -> None:
    path = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(shape) for key, shape in keys.items()}, path)
    with pytest.raises(InputError, match=words):
        open_base(path)


def test_single_file_inpainting_of_sdxl(single: Path, tmp_path: Path) -> None:
    tensors = load_file(single)
    tensors["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(32, 9, 3, 3)
    save_file(tensors, tmp_path / "inpaint.safetensors")
    with pytest.raises(InputError, match="an inpainting model of SDXL"):
        open_base(tmp_path / "inpaint.safetensors")


@pytest.mark.parametrize("part", PARTS)
def test_missing_part_of_a_folder(copy: Path, part: str) -> None:
    others = tuple(other for other in PARTS if other != part)
    if part != "text_encoder":  # without it the folder is shaped like the refiner
        shutil.rmtree(copy / part)
        with pytest.raises(InputError, match=rf"lacks {part}/"):
            open_base(copy, (part,))
        assert all(getattr(open_base(copy, (other,)), other) is not None for other in others)
    else:
        (copy / part / "model.safetensors").unlink()
        with pytest.raises(InputError, match=rf"lacks {part}/"):
            open_base(copy, (part,))


@pytest.mark.parametrize("part", PARTS)
def test_tensor_missing_or_unknown_is_named(copy: Path, single: Path, part: str) -> None:
    file = next((copy / part).glob("*.safetensors"))
    tensors = load_file(file)
    name = sorted(tensors)[0]
    save_file({key: value for key, value in tensors.items() if key != name}, file, metadata={"format": "pt"})
    with pytest.raises(FormatError, match="do not match its config.json, first: missing"):
        open_base(copy, (part,))
    save_file(tensors | {"stranger.weight": torch.zeros(2)}, file, metadata={"format": "pt"})
    with pytest.raises(FormatError, match=r"unknown .*stranger\.weight"):
        open_base(copy, (part,))


def test_single_file_with_a_tensor_too_many_or_too_few(single: Path, tmp_path: Path) -> None:
    tensors = load_file(single)
    shutil.copytree(single.with_suffix(""), tmp_path / "model")
    path = tmp_path / "model.safetensors"
    save_file(tensors | {"first_stage_model.stranger": torch.zeros(3)}, path)
    with pytest.raises(FormatError, match=r"SDXL has no tensor first_stage_model\.stranger"):
        open_base(path, ("vae",))
    tensors.pop("conditioner.embedders.1.model.ln_final.bias")
    save_file(tensors, path)
    with pytest.raises(FormatError, match=r"its text_encoder_2 does not fit .*final_layer_norm\.bias"):
        open_base(path, ("text_encoder_2",))


def test_truncated_weights(copy: Path, single: Path, tmp_path: Path) -> None:
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(FormatError, match="unet.*not a whole safetensors file"):
        open_base(copy, ("unet",))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(single.read_bytes()[:-1000])
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        open_base(cut)


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder or file; a base is a diffusers folder"):
        open_base("no/such/folder/at/all")
    with pytest.raises(MissingError, match="not in the hub cache"):
        open_base("nobody/no-such-base")
    pickled = tmp_path / "model.ckpt"
    pickled.write_bytes(b"x")
    with pytest.raises(InputError, match="a pickle, which can run any code"):
        open_base(pickled)
    with pytest.raises(InputError, match="no part head"):
        open_base("mini", ("head",))


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_hub_id_fetches_the_parts_alone(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    weights_name = f"diffusion_pytorch_model{variant}.safetensors"
    (copy / "unet" / "diffusion_pytorch_model.safetensors").rename(copy / "unet" / weights_name)
    (copy / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"not wanted")
    snapshot = tmp_path / "snapshot"

    def download(repo: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        assert repo == "owner/name"
        for path in filter(Path.is_file, copy.rglob("*")):
            name = path.relative_to(copy).as_posix()
            wanted = any(fnmatch(name, pattern) for pattern in allow_patterns)
            if wanted and not any(fnmatch(name, pattern) for pattern in ignore_patterns):
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, snapshot / name)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    base = open_base("owner/name", ("unet",))
    assert base.identity == open_base(copy, ("unet",)).identity
    fetched = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*.safetensors")}
    assert fetched == {f"unet/{weights_name}"}


def test_single_file_without_configs(single: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.symlink_to(single)
    with pytest.raises(FormatError, match=r"its unet does not fit the config: \d+ tensors do not match"):
        open_base(alone)
    assert open_base(alone, ("vae",), config=single.with_suffix("")).vae is not None
