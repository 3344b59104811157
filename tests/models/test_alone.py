"""A single file needs nothing beside it: public configs ship with the package, and what differs lies in its header."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sdxl_mel.assets import MINI
from sdxl_mel.errors import InputError
from sdxl_mel.files.carried import carried_files
from sdxl_mel.files.describe import description
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.families import FAMILIES
from sdxl_mel.models.family import PARTS
from sdxl_mel.models.folder import Folder, public_configs
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.loading import _empty_model
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.models.sd15 import SD15
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.stages.fuse import Config, run
from tests.checkpoints import write_single_file
from tests.true_size import meta_sd15, meta_sdxl

TEXTS = ["mel spectrogram, violin", "", "zither! 12"]


def fused(base: Path | str, lora: Path, out: Path, **settings: object) -> Path:
    run(Config(base=str(base), lora=(str(lora),), out=out, **settings))
    return out


def lora_for(folder: Path, family: object, layers: int, path: Path) -> Path:
    """Write a LoRA that changes nothing but one projection."""
    width = Folder(folder).config("text_encoder")["hidden_size"]
    module = LoraModule(torch.full((1, width), 0.01), torch.full((width, 1), 0.01), 1.0)
    key = ("text_encoder", "text_model.encoder.layers.0.self_attn.q_proj")
    write_lora(path, Lora({key: module}, LoraHeader(architecture=Architecture(family, layers))))
    return path


def _lasting(config: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in config.items() if not name.startswith("_")}


@pytest.fixture(params=["mini", "tiny_sdxl", "tiny_sd15"])
def alone(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A base as a folder, and fused with a LoRA into a file in a folder of its own."""
    folder = MINI if request.param == "mini" else request.getfixturevalue(request.param)
    family = SD15 if "sd15" in request.param else SDXL
    lora = lora_for(folder, family, 1 if folder == MINI else 2, tmp_path / "lora.safetensors")
    return folder, fused(folder, lora, tmp_path / "elsewhere" / "fused.safetensors")


def same_but_weights(one: Base, other: Base) -> bool:
    tokenizers = [name for name in ("tokenizer", "tokenizer_2") if one.tokenizers.get(name)]
    return (
        all(one.tokenizers[n](TEXTS).input_ids == other.tokenizers[n](TEXTS).input_ids for n in tokenizers)
        and _lasting(one.scheduler.config) == _lasting(other.scheduler.config)
        and one.family is other.family
        and all(one.identity[part] == other.identity[part] for part in ("unet", "vae"))
    )


def test_a_fused_file_carries_what_differs_from_the_public_configs(alone: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = alone
    base, opened = open_base(folder), open_base(file)
    assert same_but_weights(base, opened)
    assert opened.identity["text_encoder"] != base.identity["text_encoder"]
    assert opened.spec == base.spec
    # A folder made of the file, and a file of that folder, are the same model again.
    lora = tmp_path / "lora.safetensors"
    again = fused(file, lora, tmp_path / "folder", scale=(-1.0,))
    assert same_but_weights(base, open_base(again))
    back = fused(again, lora, tmp_path / "back.safetensors")
    assert open_base(back).identity["unet"] == base.identity["unet"]
    assert carried_files(back).keys() == carried_files(file).keys()


def test_what_is_stated_wins_over_the_header(alone: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = alone
    configs = Path(shutil.copytree(folder, tmp_path / "configs", ignore=shutil.ignore_patterns("*.safetensors")))
    scheduler = configs / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"beta_end": 0.02}))
    assert open_base(file, (), config=configs).scheduler.config.beta_end == 0.02
    assert open_base(file, ()).scheduler.config.beta_end == 0.012


@pytest.mark.parametrize(("family", "made"), [(SDXL, meta_sdxl), (SD15, meta_sd15)])
def test_the_public_configs_make_the_published_models(family: object, made: object) -> None:
    folder = public_configs(family)
    assert folder.family is family
    for part, expected in made().items():
        checkpoint = Folder(MINI).checkpoint(()) if family is SDXL else None
        model = _empty_model(checkpoint or _of(family), part, folder.config(part))
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        assert shapes == {name: tuple(tensor.shape) for name, tensor in expected.state_dict().items()}
    assert folder.scheduler_config["prediction_type"] == "epsilon"


def _of(family: object) -> object:
    from sdxl_mel.models.checkpoint import Checkpoint

    return Checkpoint(Path("x"), Architecture(family), {}, {}, True)


def test_a_file_of_public_configs_carries_nothing_and_draws_with_them(tiny_sdxl: Path, tmp_path: Path) -> None:
    file = write_single_file(tiny_sdxl, tmp_path / "foreign.safetensors")
    shutil.rmtree(file.with_suffix(""))
    base = open_base(file, ())
    assert dict(base.source.scheduler_config) == dict(public_configs(SDXL).scheduler_config)
    assert base.reading_tokenizer()("hello world").input_ids == [49406, 3306, 1002, 49407]
    assert carried_files(file) == {}


@pytest.mark.parametrize("name", ["runs/x.safetensors", "here/none", "models/base.ckpt", "./no/such"])
def test_a_mistyped_path_is_never_asked_of_the_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(InputError, match=f"{name}: no such folder or file"):
        open_base(name)
    with pytest.raises(InputError, match=f"{name}: no such folder or file"):
        open_base("mini", ("vae",), vae=name)


def test_a_header_names_the_model_by_modelspec(alone: tuple[Path, Path]) -> None:
    folder, file = alone
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    published = {2: "stable-diffusion-v1" if "sd15" in folder.name else "stable-diffusion-xl-v1-base", 1: "small-sdxl"}
    assert metadata["modelspec.architecture"] == published[1 if folder == MINI else 2]
    assert metadata["modelspec.title"] == "fused"
    assert metadata["modelspec.implementation"] == "https://github.com/Stability-AI/generative-models"
    assert metadata["modelspec.prediction_type"] == "epsilon"
    assert "x" in metadata["modelspec.resolution"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lora_of_a_small_base_does_not_claim_the_published_one(family: object, tmp_path: Path) -> None:
    module = LoraModule(torch.ones(1, 8), torch.ones(8, 1), 1.0)
    for layers in (1, 2, 3):
        header = LoraHeader(architecture=Architecture(family, layers))
        write_lora(
            tmp_path / f"{layers}.safetensors", Lora({("unet", "mid_block.attentions.0.proj_in"): module}, header)
        )
        with safe_open(tmp_path / f"{layers}.safetensors", "pt") as file:
            metadata = file.metadata()
        claims = (metadata["ss_base_model_version"], metadata["modelspec.architecture"])
        if layers == 2:
            assert claims == (family.kohya_version, f"{family.modelspec}/lora")
        else:
            assert claims == (f"small_{family.name}", f"small-{family.name}/lora")


def test_every_part_of_a_folder_has_a_config_in_the_file(alone: tuple[Path, Path]) -> None:
    base = open_base(alone[1], ())
    assert "unet/config.json" in description(alone[1])["sdxl_mel.configs"]
    assert all(base.source.config(part) for part in PARTS if part in base.family.parts)
    assert load_file(alone[1]).keys() >= {"model.diffusion_model.input_blocks.0.0.weight"}
    save_file({}, alone[1].with_name("empty.safetensors"))
    with pytest.raises(InputError, match="no checkpoint in the original layout"):
        open_base(alone[1].with_name("empty.safetensors"))
