"""SD 1.5 through every stage: pictures to cache, LoRA of UNet and text encoder, new pictures, sound, scores."""

import json
from pathlib import Path

import pytest

from sdxl_mel.files.dataset import Dataset, Item, write_dataset
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
from sdxl_mel.models.base import open_base
from sdxl_mel.models.lora.file import read_lora
from sdxl_mel.models.sd15 import SD15
from sdxl_mel.record import Record
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.melspec import MelSpec, named_spec
from sdxl_mel.stages import cache, evaluate, fuse, generate, prepare, stitch, train
from tests.dataset.music import write_folder
from tests.tiny_models import write_tiny_sd15

SPEC = named_spec("riffusion").model_copy(update={"n_mels": 64, "width": 64})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_sd15(tmp_path_factory.mktemp("slim-sd15"), slim=True)


def write_pictures(folder: Path, spec: MelSpec) -> Path:
    """Write a dataset of random pictures in another toolkit's format."""
    items = []
    for index in range(4):
        name = f"train/{index}.png"
        (folder / "train").mkdir(parents=True, exist_ok=True)
        levels = numpy_generator(0, name).integers(0, 256, (spec.n_mels, spec.width, 1)).astype("uint8")
        write_spectrogram(folder / name, Spectrogram(levels, spec))
        items.append(Item(file=name, captions=(f"mel spectrogram, number {index}",), track=f"{index}"))
    write_dataset(folder, Dataset(spec, "mel spectrogram", {"train": items}, Record(stage="test")))
    return folder


def test_the_whole_job(base: Path, tmp_path: Path) -> None:
    cache.run(cache.Build(dataset=write_pictures(tmp_path / "data", SPEC), base=str(base), out=tmp_path / "cache"))
    about = json.loads((tmp_path / "cache/cache.json").read_text())
    assert about["identity"].keys() == {"vae", "text_encoder"} and about["scaling_factor"] == 0.18215

    settings = {
        "base": str(base),
        "cache": tmp_path / "cache",
        "out": tmp_path / "run",
        "steps": 2,
        "batch": 2,
        "trackers": (),
        "adapter": {"rank": 2, "targets": ("attention",), "text_encoders": ("text_encoder",)},
        "validation": {"every": 0},
        "samples": {"every": 2, "count": 1, "steps": 2},
    }
    train.run(train.Config.model_validate(settings))
    path = tmp_path / "run/lora.safetensors"
    lora = read_lora(path)
    assert lora.family is SD15 and lora.header.spec == SPEC
    assert {part for part, _ in lora.modules} == {"unet", "text_encoder"}
    assert lora.header.base == {part: open_base(base, ()).identity_of(part) for part in ("unet", "text_encoder")}
    assert read_lora(tmp_path / "run/diffusers").modules.keys() == lora.modules.keys()

    fuse.run(fuse.Config(base=str(base), lora=(str(path),), out=tmp_path / "fused", verify=True))
    drawing = {"prompt": "number 1", "steps": 2, "out": tmp_path / "tiles", "method": "fast"}
    generate.run(generate.Config(base=str(base), lora=path, num=2, **drawing))
    generate.run(generate.Config(base=str(tmp_path / "fused"), **drawing | {"out": tmp_path / "fused-tiles"}))
    (picture, *_), (same, *_) = (sorted((tmp_path / name).glob("*.png")) for name in ("tiles", "fused-tiles"))
    assert read_spectrogram(picture).spec == SPEC
    difference = read_spectrogram(picture).levels.astype(int) - read_spectrogram(same).levels
    assert abs(difference).max() <= 1

    long = tmp_path / "long.png"
    stitch.run(stitch.Config(tiles=(tmp_path / "tiles",), out=long, wav=tmp_path / "long.wav", method="fast"))
    assert read_spectrogram(long).levels.shape[1] > SPEC.width


@pytest.mark.slow
def test_from_music_to_scores(base: Path, tmp_path: Path) -> None:
    """Music of our own format, frozen text encoder; what is drawn is judged against what it was trained on."""
    music = write_folder(tmp_path / "music", {f"{name}.wav": name for name in ("flute", "harp", "oboe")}, seconds=7.0)
    prepare.run(prepare.Config(music=music, preset="mini", out=tmp_path / "data", validation=0, test=0))
    cache.run(cache.Build(dataset=tmp_path / "data", base=str(base), out=tmp_path / "cache"))
    settings = {
        "base": str(base),
        "cache": tmp_path / "cache",
        "out": tmp_path / "run",
        "steps": 1,
        "batch": 2,
        "trackers": (),
        "adapter": {"rank": 2, "targets": ("mid_block.*",)},
        "validation": {"every": 0},
    }
    train.run(train.Config.model_validate(settings))
    lora = tmp_path / "run/lora.safetensors"
    assert {part for part, _ in read_lora(lora).modules} == {"unet"}
    drawn = {"prompt": "flute", "num": 2, "steps": 1, "method": "fast", "out": tmp_path / "drawn"}
    generate.run(generate.Config(base=str(base), lora=lora, **drawn))
    judged = {"embedder": ("mel",), "cache": tmp_path / "vectors", "report": False, "out": tmp_path / "scores"}
    found = evaluate.run(evaluate.Config(generated=tmp_path / "drawn", reference=music, **judged)).evaluation
    assert found.metrics
