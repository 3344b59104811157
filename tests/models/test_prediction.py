"""v-prediction and zero terminal SNR: read from either kind of base, drawn rightly, and written both ways."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sdxl_mel.diffusion.sampling import make_scheduler, sample
from sdxl_mel.errors import InputError
from sdxl_mel.models.base import open_base
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.lora.file import Lora, LoraHeader, read_lora, write_lora
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.models.lora.scaled import ScaledLora, say_other_prediction
from sdxl_mel.models.sd15 import SD15
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.progress import showing
from sdxl_mel.stages.fuse import Config, run
from sdxl_mel.stages.lora import Extract
from sdxl_mel.stages.lora import run as extract
from sdxl_mel.training.run import diffusion_of
from tests.checkpoints import edit_json, write_single_file

MARKS = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
MODULE = LoraModule(torch.ones(1, 32), torch.zeros(32, 1), 1.0)


def zero_terminal_snr() -> torch.Tensor:
    """Return abar of SDXL's and SD 1.5's betas after algorithm 1 of arXiv 2305.08891, in float64."""
    root = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    return ((root - last) * first / (first - last)).square()


def file_with(
    folder: Path, path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> Path:
    write_single_file(folder, path)
    save_file(load_file(path) | tensors, path, metadata=metadata)
    return path


@pytest.fixture(params=["tiny_sdxl", "tiny_sd15"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture
def lora(folder: Path, tmp_path: Path) -> Path:
    header = LoraHeader(architecture=Architecture(SD15 if "sd15" in folder.name else SDXL))
    write_lora(
        tmp_path / "l.safetensors", Lora({("text_encoder", "text_model.encoder.layers.0.mlp.fc1"): _fc1()}, header)
    )
    return tmp_path / "l.safetensors"


def _fc1() -> LoraModule:
    return LoraModule(torch.ones(1, 32), torch.zeros(64, 1), 1.0)


@pytest.mark.parametrize("sampler", ["euler", "ddim", "ddpm", "dpmpp_2m", "unipc"])
def test_a_marked_file_is_drawn_as_v_prediction_from_pure_noise(folder: Path, sampler: str, tmp_path: Path) -> None:
    """A UNet that knows the one picture there is leads every sampler to it, if what it predicts is understood."""
    base = open_base(file_with(folder, tmp_path / "v.safetensors", MARKS), ())
    picture = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4)
    abar = zero_terminal_snr()

    def predict(noisy: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        signal, sigma = abar[int(timestep)].sqrt(), (1 - abar[int(timestep)]).sqrt()
        noise = (noisy - signal * picture) / sigma
        return (signal * noise - sigma * picture).float()

    scheduler = make_scheduler(sampler, base.scheduler)
    assert scheduler.config.prediction_type == "v_prediction"
    drawn = sample(scheduler, 20, torch.randn(1, 4, 4, 4, generator=torch.manual_seed(0)), predict, seeds=[0])
    assert int(scheduler.timesteps[0]) == 999
    assert float((drawn - picture).abs().max()) < 0.15


def test_the_noise_schedule_ends_without_signal_and_training_takes_it(folder: Path, tmp_path: Path) -> None:
    base = open_base(file_with(folder, tmp_path / "v.safetensors", MARKS), ())
    torch.testing.assert_close(base.scheduler.alphas_cumprod.double(), zero_terminal_snr(), atol=1e-6, rtol=0)
    assert diffusion_of(base).prediction == "v_prediction"


@pytest.mark.parametrize(
    ("tensors", "metadata", "prediction", "zero"),
    [
        ({"v_pred": torch.zeros(0)}, None, "v_prediction", False),
        ({"v_pred": torch.zeros(1)}, {"modelspec.prediction_type": "epsilon"}, "v_prediction", False),
        ({}, {"modelspec.prediction_type": "v"}, "v_prediction", False),
        ({}, {"modelspec.prediction_type": "v_prediction"}, "v_prediction", False),
        ({"ztsnr": torch.zeros(0)}, {"modelspec.prediction_type": "v"}, "v_prediction", True),
        ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
        ({"ztsnr": torch.zeros(0)}, None, "epsilon", False),
        ({"ztsnr": torch.zeros(1)}, {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
    ],
)
def test_marks_and_metadata(
    folder: Path, tensors: dict, metadata: dict | None, prediction: str, zero: bool, tmp_path: Path
) -> None:
    config = open_base(file_with(folder, tmp_path / "v.safetensors", tensors, metadata), ()).scheduler.config
    assert config.prediction_type == prediction
    assert bool(config.get("rescale_betas_zero_snr")) is zero


def test_a_fused_model_keeps_it_both_ways(folder: Path, lora: Path, tmp_path: Path) -> None:
    source = file_with(folder, tmp_path / "v.safetensors", MARKS)
    made = {}
    for name, base in (("out", source), ("back.safetensors", tmp_path / "out"), ("file.safetensors", source)):
        run(Config(base=str(base), lora=(str(lora),), out=tmp_path / name))
        opened = open_base(tmp_path / name, ()).scheduler.config
        made[name] = {key: value for key, value in opened.items() if not key.startswith("_")}
    config = json.loads((tmp_path / "out/scheduler/scheduler_config.json").read_text())
    index = json.loads((tmp_path / "out/model_index.json").read_text())
    assert config["prediction_type"] == "v_prediction" and config["rescale_betas_zero_snr"] is True
    assert index["scheduler"] == ["diffusers", config["_class_name"]]
    assert made["out"] == made["back.safetensors"] == made["file.safetensors"]
    for name in ("back.safetensors", "file.safetensors"):
        with safe_open(tmp_path / name, "pt") as file:
            assert set(MARKS) <= set(file.keys())
            assert file.metadata()["modelspec.prediction_type"] == "v"


def test_a_folder_of_v_prediction_marks_the_file_and_one_of_epsilon_does_not(
    folder: Path, lora: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    run(Config(base=str(copy), lora=(str(lora),), out=tmp_path / "e.safetensors"))
    assert not set(MARKS) & load_file(tmp_path / "e.safetensors").keys()
    edit_json(copy / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    run(Config(base=str(copy), lora=(str(lora),), out=tmp_path / "v.safetensors"))
    assert set(MARKS) & load_file(tmp_path / "v.safetensors").keys() == {"v_pred"}


def test_an_extracted_lora_says_what_the_tuned_model_predicts(folder: Path, lora: Path, tmp_path: Path) -> None:
    source = file_with(folder, tmp_path / "v.safetensors", MARKS)
    tensors = load_file(lora)
    name = next(name for name in tensors if "lora_up" in name)
    save_file(tensors | {name: torch.ones_like(tensors[name])}, lora, {"sdxl_mel.family": folder_family(folder)})
    run(Config(base=str(source), lora=(str(lora),), out=tmp_path / "tuned.safetensors"))
    out = tmp_path / "extracted.safetensors"
    extract(Extract(base=str(source), tuned=str(tmp_path / "tuned.safetensors"), rank=1, out=out))
    assert read_lora(out).header.prediction == "v_prediction"


def folder_family(folder: Path) -> str:
    return "sd15" if "sd15" in folder.name else "sdxl"


def test_a_sampler_that_cannot_draw_it_says_so(folder: Path, tmp_path: Path) -> None:
    base = open_base(file_with(folder, tmp_path / "v.safetensors", MARKS), ())
    with pytest.raises(InputError, match=r"--sampler heun: this base has zero terminal SNR.*take euler or ddim"):
        make_scheduler("heun", base.scheduler)


def test_a_lora_says_what_its_base_predicts(tmp_path: Path) -> None:
    module = {("unet", "mid_block.attentions.0.proj_in"): MODULE}
    for prediction, said in (("epsilon", "epsilon"), ("v_prediction", "v")):
        for dialect in ("kohya", "diffusers"):
            write_lora(tmp_path / "lora.safetensors", Lora(module, LoraHeader(prediction=prediction)), dialect)
            assert read_lora(tmp_path / "lora.safetensors").header.prediction == prediction
            with safe_open(tmp_path / "lora.safetensors", "pt") as file:
                assert file.metadata().get("modelspec.prediction_type") in (said, None)
    save_file(load_file(tmp_path / "lora.safetensors"), tmp_path / "k.safetensors", {"modelspec.prediction_type": "v"})
    assert read_lora(tmp_path / "k.safetensors", alpha="rank").header.prediction == "v_prediction"


@pytest.mark.parametrize(
    ("trained", "drawn", "said"),
    [("v_prediction", "epsilon", 1), ("v_prediction", "v_prediction", 0), ("epsilon", "v_prediction", 0)],
)
def test_a_lora_for_v_on_a_base_that_predicts_epsilon_is_said(trained: str, drawn: str, said: int) -> None:
    module = {("unet", "mid_block.attentions.0.proj_in"): MODULE}
    lora = ScaledLora(Path("a.safetensors"), Lora(module, LoraHeader(prediction=trained)), 1.0)
    events: list = []
    with showing(events.append):
        say_other_prediction([lora], drawn, "base")
    assert ["expect noise" in event.text for event in events] == [True] * said
