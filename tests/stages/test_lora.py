"""`sdxl-mel lora`: each action by the law it must keep."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sdxl_mel.cli import run_stage
from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.lora.file import Lora, LoraHeader, LoraModule, read_lora, write_lora
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages import fuse
from sdxl_mel.stages.lora import Compare, Convert, Extract, Info, Merge, Resize, run
from tests.loras import random_module

PATHS = [
    ("unet", "mid_block.attentions.0.proj_in"),
    ("unet", "mid_block.resnets.0.conv1"),
    ("text_encoder_2", "text_model.encoder.layers.0.mlp.fc1"),
]
LAYERS = [nn.Linear(64, 64), nn.Conv2d(64, 64, 3), nn.Linear(48, 96)]
HEADER = LoraHeader(spec=PRESETS["mini"], anchor="mel spectrogram", record=Record(stage="train"))


def written(path, seed: int = 0, rank: int = 4, alpha: float = 2.0, header: LoraHeader = HEADER):
    generator = torch.Generator().manual_seed(seed)
    write_lora(path, Lora({key: random_module(x, rank, alpha, generator) for key, x in zip(PATHS, LAYERS)}, header))
    return path


@pytest.fixture
def lora(tmp_path):
    return written(tmp_path / "lora.safetensors")


def products(path) -> dict[tuple[str, str], torch.Tensor]:
    return {key: module.product() for key, module in read_lora(path).modules.items()}


def assert_close(one, other, **tolerance):
    assert one.keys() == other.keys()
    for key, change in one.items():
        torch.testing.assert_close(change, other[key], **tolerance)


def with_embeddings_and_no_alpha(lora, path):
    tensors = {name: tensor for name, tensor in load_file(lora).items() if not name.endswith(".alpha")}
    save_file(tensors | {"bundle_emb.word.clip_l": torch.zeros(2, 8)}, path, {"sdxl_mel.layers_per_block": "2"})
    return str(path)


@pytest.mark.parametrize("action", ["info", "convert", "resize", "merge", "compare"])
def test_what_is_not_used_and_what_was_taken_for_granted_are_reported(action, lora, tmp_path, capsys):
    foreign, out = (
        with_embeddings_and_no_alpha(lora, tmp_path / "foreign.safetensors"),
        str(tmp_path / "out.safetensors"),
    )
    words = {
        "info": [foreign],
        "convert": [foreign, "--out", out],
        "resize": [foreign, "--rank", "1", "--out", out],
        "merge": [foreign, str(lora), "--out", out],
        "compare": [str(lora), foreign],
    }
    assert run_stage("lora", [action, *words[action], "--quiet"], "sdxl-mel") == 3
    said = capsys.readouterr().out
    assert f"{foreign}: 3 of 3 modules hold no alpha" in said
    assert f"skipped {foreign}: bundle_emb.word.clip_l" in said


def test_there_and_back_makes_the_same_bytes(lora, tmp_path):
    (tmp_path / "back").mkdir()
    there, back = tmp_path / "there.safetensors", tmp_path / "back" / "lora.safetensors"
    write_lora(lora, Lora({key: each.with_alpha(each.rank) for key, each in read_lora(lora).modules.items()}, HEADER))
    run(Convert(file=str(lora), to="diffusers", out=there))
    run(Convert(file=str(there), to="kohya", out=back))
    assert back.read_bytes() == lora.read_bytes()


def test_there_and_back_makes_the_same_change_under_any_alpha(lora, tmp_path):
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    run(Convert(file=str(lora), to="diffusers", out=there))
    run(Convert(file=str(there), to="kohya", out=back))
    assert_close(products(back), products(lora), atol=1e-6, rtol=1e-5)


def test_convert_says_what_others_make_of_a_dora_and_of_layers_outside_the_blocks(tmp_path):
    generator = torch.Generator().manual_seed(0)
    plain = random_module(nn.Linear(8, 8), 2, 2.0, generator)
    layers = (
        "conv_in",
        "conv_out",
        "time_embedding.linear_1",
        "add_embedding.linear_2",
        "mid_block.attentions.0.proj_in",
    )
    modules = {("unet", name): plain for name in layers}
    write_lora(tmp_path / "a.safetensors", Lora(modules | {PATHS[2]: replace(plain, magnitude=torch.ones(8))}))
    said = run(Convert(file=str(tmp_path / "a.safetensors"), out=tmp_path / "b.safetensors")).summary()
    assert "fuse it into its base" in said and "kohya's scripts ignore 4 of its modules" in said
    assert "mid_block" not in said
    compared = run(Compare(first=str(tmp_path / "a.safetensors"), second=str(tmp_path / "b.safetensors"))).summary()
    assert "1 modules have the magnitudes of a DoRA, which are not compared" in compared


def test_convert_says_what_diffusers_misreads(lora, tmp_path):
    modules = read_lora(lora).modules
    mixed = {key: module.with_alpha(1.0 + index) for index, (key, module) in enumerate(modules.items())}
    write_lora(tmp_path / "mixed.safetensors", Lora(mixed))
    config = Convert(file=str(tmp_path / "mixed.safetensors"), out=tmp_path / "a.safetensors")
    assert "3 different alphas" in run(config).summary()
    folded = config.model_copy(update={"one_alpha": True, "out": tmp_path / "b.safetensors"})
    assert "alphas" not in run(folded).summary()
    assert_close(products(tmp_path / "b.safetensors"), products(lora), atol=1e-6, rtol=1e-5)


def test_info_says_what_is_inside(lora):
    summary = run(Info(file=str(lora))).summary()
    for text in ("3 modules", "rank 4, alpha 2, 1 convolutions", "spec: mini", "anchor: mel spectrogram", "train"):
        assert text in summary


def test_compare_measures_the_distance(lora, tmp_path):
    modules = read_lora(lora).modules
    stronger = {key: LoraModule(m.down, m.up * 1.5, m.alpha) for key, m in modules.items()}
    write_lora(tmp_path / "stronger.safetensors", Lora(stronger))
    same = run(Compare(first=str(lora), second=str(lora))).lines[-1]
    other = run(Compare(first=str(lora), second=str(tmp_path / "stronger.safetensors"))).lines[-1]
    assert "difference 0.000e+00  cosine +1.000000" in same
    assert "difference 5.000e-01  cosine +1.000000" in other


def test_resize_keeps_everything_at_the_same_rank_and_less_below(lora, tmp_path):
    whole = run(Resize(file=str(lora), rank=4, out=tmp_path / "same.safetensors"))
    assert min(whole.kept.values()) == pytest.approx(1)
    assert_close(products(tmp_path / "same.safetensors"), products(lora), atol=1e-5, rtol=1e-5)
    less = run(Resize(file=str(lora), rank=2, out=tmp_path / "less.safetensors"))
    assert all(0.5 < kept < 1 for kept in less.kept.values())
    small = read_lora(tmp_path / "less.safetensors")
    assert {module.rank for module in small.modules.values()} == {2}
    assert {module.alpha for module in small.modules.values()} == {2.0}
    assert small.header.record.settings["before"] == [HEADER.record.model_dump(mode="json")]


def test_merge_adds_and_averages(lora, tmp_path):
    other = written(tmp_path / "other.safetensors", seed=1, rank=3, alpha=1.0)
    files = (f"{lora}:0.5", f"{other}:1.5")
    run(Merge(files=files, out=tmp_path / "sum.safetensors"))
    run(Merge(files=files, how="average", rank=7, out=tmp_path / "mean.safetensors"))
    total = {key: 0.5 * change + 1.5 * products(other)[key] for key, change in products(lora).items()}
    assert_close(products(tmp_path / "sum.safetensors"), total, atol=1e-5, rtol=1e-5)
    assert_close(
        products(tmp_path / "mean.safetensors"), {key: t / 2 for key, t in total.items()}, atol=1e-5, rtol=1e-5
    )
    assert {module.rank for module in read_lora(tmp_path / "sum.safetensors").modules.values()} == {7}


def test_what_was_fused_is_extracted(lora, tiny_sdxl, tmp_path):
    fuse.run(fuse.Config(base=str(tiny_sdxl), lora=(str(lora),), out=tmp_path / "tuned.safetensors"))
    config = Extract(
        base=str(tiny_sdxl),
        tuned=str(tmp_path / "tuned.safetensors"),
        rank=4,
        layers="all",
        out=tmp_path / "again.safetensors",
    )
    report = run(config)
    assert min(report.kept.values()) > 0.9999
    assert_close(products(tmp_path / "again.safetensors"), products(lora), atol=1e-5, rtol=1e-4)
    assert read_lora(tmp_path / "again.safetensors").header.spec == HEADER.spec
    linear = config.model_copy(update={"layers": "linear", "out": tmp_path / "linear.safetensors"})
    assert "1 changed tensors are not among the layers chosen" in run(linear).summary()
    nothing = config.model_copy(update={"tuned": str(tiny_sdxl), "out": tmp_path / "nothing.safetensors"})
    with pytest.raises(InputError, match="nothing to extract"):
        run(nothing)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "LORA"], "required: SECOND"),
        (["convert", "LORA"], "out is needed"),
        (["convert", "LORA", "--out", "x.ckpt"], "a LoRA is written as NAME.safetensors"),
        (["convert", "LORA", "--out", "LORA"], "is there already"),
        (["resize", "LORA", "--out", "x.safetensors"], "rank is needed"),
        (["resize", "LORA", "--rank", "0", "--out", "x.safetensors"], "rank"),
        (["convert", "LORA:0.5", "--out", "x.safetensors"], "only merge does"),
        (["merge", "LORA:1", "LORA:-1", "--how", "average", "--out", "x.safetensors"], "add up to 0"),
        (["explode", "LORA"], "explode"),
    ],
)
def test_what_cannot_be_done_is_said(arguments, said, lora, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_stage("lora", [word.replace("LORA", str(lora)) for word in arguments], "sdxl-mel lora") == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x.safetensors").exists()


def test_a_dora_is_not_merged_and_other_specs_are_not_mixed(lora, tmp_path):
    modules = read_lora(lora).modules
    dora = {key: LoraModule(m.down, m.up, m.alpha, torch.ones(len(m.up))) for key, m in modules.items()}
    write_lora(tmp_path / "dora.safetensors", Lora(dora))
    config = Merge(files=(str(lora), str(tmp_path / "dora.safetensors")), out=tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="a DoRA, whose magnitudes do not add up"):
        run(config)
    std = written(tmp_path / "std.safetensors", header=LoraHeader(spec=PRESETS["std"]))
    with pytest.raises(MismatchError, match="made with different specs"):
        run(config.model_copy(update={"files": (str(lora), str(std))}))
