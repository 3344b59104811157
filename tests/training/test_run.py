"""Whole runs on the tiny SDXL: what they leave behind, resuming bit for bit, and what is refused."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sdxl_mel.config import read_toml, validated
from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.files.run import checkpoints
from sdxl_mel.files.run_header import read_run
from sdxl_mel.files.writer import only_writer
from sdxl_mel.models.lora.file import read_lora
from sdxl_mel.stages import train
from sdxl_mel.training import lora_run
from sdxl_mel.training.loop import Loop
from sdxl_mel.training.state import saved_states
from tests.caches import SMALL as SMALL_SPEC

SMALL = {
    "steps": 4,
    "batch": 2,
    "save_every": 2,
    "trackers": (),
    "adapter": {"rank": 2, "targets": ("attention",), "rank_dropout": 0.2},
    "optimizer": {"rate": 1e-2},
    "validation": {"every": 2, "clips": 1},
    "regularization": {"share": 0.5},
}


@pytest.fixture
def settings(slim_sdxl, small_cache, tmp_path):
    return SMALL | {"base": str(slim_sdxl), "cache": small_cache, "out": tmp_path / "run"}


@pytest.fixture(scope="module")
def finished(slim_sdxl, small_cache, tmp_path_factory):
    """Return the settings of a run of two steps that has ended."""
    out = tmp_path_factory.mktemp("finished") / "run"
    settings = SMALL | {"base": str(slim_sdxl), "cache": small_cache, "out": out, "steps": 2, "save_every": 1}
    _run(settings)
    return settings


def with_scheduler(base: Path, folder: Path, **changes: object) -> Path:
    """Return a copy of a base whose scheduler is another."""
    shutil.copytree(base, folder)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    return folder


def _run(settings, **changes):
    return train.run(train.Config.model_validate({**settings, **changes}))


def _lora_bytes(folder: Path) -> bytes:
    return (folder / "lora.safetensors").read_bytes()


def test_a_run_leaves_everything_behind(settings, with_curves):
    report = _run(settings)
    out = settings["out"]
    assert report.exit_code == 0
    header = read_run(out)
    assert header.results["steps"] == 4
    assert list(checkpoints(out)) == [2, 4]
    ours, theirs = read_lora(out / "lora.safetensors"), read_lora(out / "diffusers")
    assert len(ours.modules) == len(theirs.modules) == 7 * 8
    assert ours.header.spec == header.spec
    assert ours.header.anchor == "mel spectrogram"
    assert set(ours.header.base) == {"unet", "text_encoder", "text_encoder_2"}
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "validation/held out" in row] == [0, 2, 4]
    assert len(rows[0]["validation/held out"]) == 10
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    card = (out / "README.md").read_text()
    assert "library_name: diffusers" in card
    assert "mel spectrogram" in card


def test_the_config_it_wrote_starts_it_again(settings, tmp_path):
    _run(settings)
    written = read_toml(settings["out"] / "config.toml")
    train.run(validated(train.Config, written | {"out": str(tmp_path / "again")}, "config.toml"))
    assert _lora_bytes(tmp_path / "again") == _lora_bytes(settings["out"])


class _Killed(BaseException):
    pass


def test_killed_and_resumed_is_bit_for_bit_the_run_that_was_not(settings, tmp_path, monkeypatch):
    settings["averages"] = {"lengths": (0.1, 0.2), "feedback_every": 3}
    settings["loss"] = {"kind": "huber", "weighting": "none"}
    settings["regularization"] = {"share": 0.5, "target": "base"}
    _run(settings)
    whole = _lora_bytes(settings["out"])
    settings["out"] = tmp_path / "killed"
    real = Loop.step

    def dies(loop, *rest):
        if loop.state.step == 3:
            raise _Killed
        return real(loop, *rest)

    with monkeypatch.context() as patched, pytest.raises(_Killed):
        patched.setattr(Loop, "step", dies)
        _run(settings)
    assert [path.name for path in saved_states(settings["out"])] == ["step-000002"]
    _run(settings, resume=True)
    assert _lora_bytes(settings["out"]) == whole
    rows = [json.loads(line)["step"] for line in (settings["out"] / "metrics.jsonl").read_text().splitlines()]
    assert rows == sorted(rows)


def test_the_last_states_are_kept(settings):
    _run(settings, save_every=1, keep=2, validation={"every": 0})
    assert [path.name for path in saved_states(settings["out"])] == ["step-000003", "step-000004"]


def test_a_run_is_not_overwritten(settings):
    _run(settings, steps=1, validation={"every": 0})
    before = _lora_bytes(settings["out"])
    with pytest.raises(InputError, match="--resume continues it"):
        _run(settings, steps=1)
    assert _lora_bytes(settings["out"]) == before


def test_what_a_task_made_before_it_was_stopped_is_taken(settings):
    (settings["out"] / "redrawn_latents").mkdir(parents=True)
    _run(settings, steps=1, validation={"every": 0}, dry_run=True)
    (settings["out"] / "notes.txt").touch()
    with pytest.raises(InputError, match="files in it that are no run"):
        _run(settings, steps=1, dry_run=True)


def test_a_run_of_another_task_is_not_resumed(finished, tmp_path):
    copy = shutil.copytree(finished["out"], tmp_path / "copy")
    header = json.loads((copy / "run.json").read_text())
    header["settings"]["task"] = "steps"
    (copy / "run.json").write_text(json.dumps(header))
    with pytest.raises(MismatchError, match="its run is one of --task steps, not of lora; give that task"):
        _run(finished, out=copy, resume=True)


def test_changed_settings_are_refused_or_recorded(settings):
    _run(settings, steps=2, validation={"every": 0})
    with pytest.raises(MismatchError, match=r"optimizer.rate 0.01 -> 0.02"):
        _run(settings, steps=2, validation={"every": 0}, optimizer={"rate": 0.02}, resume=True)
    _run(settings, steps=3, validation={"every": 0}, resume_with_changes=True)
    assert read_run(settings["out"]).changes == ({"steps": [2, 3]},)


def test_what_does_not_decide_the_result_may_change(settings, small_cache, tmp_path):
    _run(settings, steps=2, validation={"every": 0})
    moved = shutil.copytree(small_cache, tmp_path / "moved")
    _run(settings, steps=2, validation={"every": 0}, resume=True, cache=moved, micro_batch=1, save_every=1, keep=1)
    header = read_run(settings["out"])
    assert header.changes == ()
    assert not {"cache", "out", "base", "micro_batch", "save_every", "keep", "trackers"} & header.record.settings.keys()


def test_another_cache_is_refused_at_a_resume(settings, slim_sdxl, tmp_path):
    from tests.caches import write_small_cache

    _run(settings, steps=2, validation={"every": 0}, regularization={"share": 0.0})
    other = write_small_cache(tmp_path / "other", slim_sdxl, {"train": 2})
    with pytest.raises(MismatchError, match="inputs changed since it was started: cache"):
        _run(settings, steps=2, validation={"every": 0}, regularization={"share": 0.0}, resume=True, cache=other)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("anchor", {"anchor": "a spectrogram"}),
        ("spec", {"spec": SMALL_SPEC.model_copy(update={"fmin": 40.0}).model_dump(mode="json")}),
        ("base", None),
    ],
)
def test_another_anchor_spec_or_base_is_refused_at_a_resume(finished, slim_sdxl, small_cache, tmp_path, what, change):
    settings = dict(finished)
    if change is None:
        settings["base"] = str(with_scheduler(slim_sdxl, tmp_path / "other", prediction_type="v_prediction"))
    else:
        settings["cache"] = shutil.copytree(small_cache, tmp_path / "other")
        header = json.loads((settings["cache"] / "cache.json").read_text())
        (settings["cache"] / "cache.json").write_text(json.dumps(header | change))
    with pytest.raises(
        MismatchError, match="inputs changed since it was started: " + ("cache", "prediction")[what == "base"]
    ):
        _run(settings, resume=True, dry_run=True)


@pytest.mark.parametrize("zero", [False, True])
def test_v_prediction_is_trained_and_said(settings, slim_sdxl, tmp_path, zero):
    """Two other programs' names: modelspec's `v`, and kohya's key for zero terminal SNR."""
    kinds = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": zero}
    base = with_scheduler(slim_sdxl, tmp_path / "v", **kinds)
    _run(settings, base=str(base), steps=2, timesteps={"low": 998}, validation={"every": 1, "clips": 1})
    with safe_open(settings["out"] / "lora.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.prediction_type"] == "v"
    assert metadata.get("ss_zero_terminal_snr") == ("True" if zero else None)
    for name in ("lora.safetensors", "diffusers"):
        assert read_lora(settings["out"] / name).header.prediction == "v_prediction"
    rows = [json.loads(line) for line in (settings["out"] / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss"] >= 0 for row in rows if "loss" in row)


def test_epsilon_with_zero_terminal_snr_is_refused(settings, slim_sdxl, tmp_path):
    base = with_scheduler(slim_sdxl, tmp_path / "zero", rescale_betas_zero_snr=True)
    with pytest.raises(InputError, match="zero terminal SNR with epsilon"):
        _run(settings, base=str(base))


def test_files_say_the_steps_that_were_taken(finished):
    out = finished["out"]
    steps = {step: read_lora(path).header.training["steps"] for step, path in checkpoints(out).items()}
    assert steps == {1: "1", 2: "2"}
    assert read_lora(out / "lora.safetensors").header.training["steps"] == "2"
    assert "Trained 2 steps of 2" in (out / "README.md").read_text()


def test_a_tenth_without_an_example_has_no_error(finished):
    """Two examples a step fall into at most two of the ten parts of the noise."""
    rows = [json.loads(line) for line in (finished["out"] / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if "by_timestep" in row:
            assert row["by_timestep"].count(None) in (8, 9)
            assert all(each is None or each > 0 for each in row["by_timestep"])


def test_what_other_programs_do_not_read_is_said(settings, capsys):
    adapter = {"rank": 1, "targets": ("attention+conv",), "dora": True}
    _run(settings, steps=1, adapter=adapter, validation={"every": 0})
    shown, card = " ".join(capsys.readouterr().err.split()), (settings["out"] / "README.md").read_text()
    for text in (shown, card):
        assert "kohya's scripts and diffusers (0.42) drop the magnitudes; fuse it into its base" in text
        assert "kohya's scripts ignore 6 of its modules" in text
        assert "unet.conv_in, unet.time_embedding.linear_1" in text


@pytest.mark.parametrize(
    "said",
    [
        {"WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
        {"PMI_SIZE": "2"},
    ],
)
def test_processes_that_do_not_see_each_other_are_refused(said, settings, monkeypatch):
    """accelerate's config asks for two GPUs on a machine without one: each process would take the run for its own."""
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MismatchError, match="2 processes were started, and none sees the others.*--cpu"):
        _run(settings)
    assert not settings["out"].exists()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing keeps processes apart there")
def test_a_folder_in_which_another_process_writes_is_left_alone(settings):
    with only_writer(settings["out"]), pytest.raises(InputError, match="run: another process is writing in it"):
        _run(settings)
    assert not settings["out"].exists()


def test_one_sample_has_no_diversity(settings):
    _run(settings, steps=1, samples={"every": 1, "count": 1, "steps": 1}, validation={"every": 0})
    rows = [json.loads(line) for line in (settings["out"] / "metrics.jsonl").read_text().splitlines()]
    sampled = [row for row in rows if "samples/level" in row]
    assert len(sampled) == 2
    assert not any("samples/diversity" in row for row in sampled)


def test_the_estimate_is_counted_by_the_process_that_prints_it(settings, monkeypatch):
    from accelerate import Accelerator

    def never(*_):
        raise AssertionError("counted where nothing is printed")

    monkeypatch.setattr(Accelerator, "is_main_process", False)
    monkeypatch.setattr(lora_run, "estimate", never)
    assert lora_run.train_lora(train.Config.model_validate({**settings, "dry_run": True})) is None


def test_samples_are_drawn_heard_and_measured(settings):
    _run(settings, steps=1, samples={"every": 1, "count": 2, "steps": 2})
    names = {path.name for path in (settings["out"] / "samples/step-000001").iterdir()}
    assert names == {"00.png", "00.wav", "01.png", "01.wav"}
    rows = [json.loads(line) for line in (settings["out"] / "metrics.jsonl").read_text().splitlines()]
    sampled = [row for row in rows if "samples/diversity" in row]
    assert [row["step"] for row in sampled] == [0, 1]
    assert sampled[0]["samples/diversity"] > 0
    first, second = (settings["out"] / f"samples/step-00000{step}/00.png" for step in (0, 1))
    assert first.read_bytes() != second.read_bytes()


def test_a_dry_run_prints_and_writes_nothing(settings, capsys):
    _run(settings, dry_run=True)
    shown = capsys.readouterr().err
    assert "estimate:" in shown
    assert "GiB" in shown
    assert "[optimizer]" in shown
    assert not settings["out"].exists()


def test_the_best_average_is_the_lora(settings):
    report = _run(settings, averages={"lengths": (0.1,)})
    losses = report.results["held-out loss of each"]
    assert set(losses) == {"last", "0.1"}
    chosen = "averages/0.1.safetensors" if report.results["average"] == "0.1" else "checkpoints/step-000004.safetensors"
    best = read_lora(settings["out"] / chosen)
    final = read_lora(settings["out"] / "lora.safetensors")
    assert all(torch.equal(module.up, final.modules[key].up) for key, module in best.modules.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"adapter": {"init": "absent.safetensors"}}, "absent.safetensors"),
        ({"push_to_hub": "-no-"}, "--push-to-hub '-no-': .* expected NAME or USER/NAME"),
    ],
)
def test_what_cannot_be_used_is_said_before_the_training(change, said, settings):
    with pytest.raises(InputError, match=said):
        _run(settings, **change)
    assert not settings["out"].exists()


def test_an_empty_split_is_refused(settings, slim_sdxl, tmp_path):
    from tests.caches import write_small_cache

    cache = write_small_cache(tmp_path / "one", slim_sdxl, {"train": 2})
    with pytest.raises(InputError, match=r"split 'regularization' is empty"):
        _run(settings, cache=cache)
    cache = write_small_cache(tmp_path / "two", slim_sdxl, {"validation": 2})
    with pytest.raises(InputError, match=r"split 'train' is empty"):
        _run(settings, cache=cache)


def test_a_cache_of_another_base_is_refused(settings, tmp_path):
    from tests.tiny_models import write_tiny_sdxl

    other = write_tiny_sdxl(tmp_path / "other", seed=1, slim=True)
    with pytest.raises(MismatchError, match="made with another vae and text_encoder"):
        _run(settings, base=str(other))


def test_loss_that_is_not_finite_stops_names_the_clips_and_keeps_the_last_state(settings):
    with pytest.raises(InputError, match=r"step 2: loss nan.*train/\d+\.png.*state/step-000001") as caught:
        _run(settings, save_every=1, optimizer={"rate": 1e30, "clip": 0.0}, validation={"every": 0})
    assert "\n" not in str(caught.value)
    tensors = load_file(settings["out"] / "state/step-000001/state.safetensors")
    assert all(bool(torch.isfinite(tensor.float()).all()) for tensor in tensors.values())


def test_a_lora_to_start_from(settings, tmp_path):
    first = settings["out"]
    _run(settings, validation={"every": 0})
    adapter = SMALL["adapter"] | {"init": first / "lora.safetensors"}
    _run(
        settings, out=tmp_path / "second", steps=1, adapter=adapter, optimizer={"rate": 1e-12}, validation={"every": 0}
    )
    old, new = read_lora(first / "lora.safetensors"), read_lora(tmp_path / "second" / "lora.safetensors")
    for key, module in old.modules.items():
        assert torch.allclose(module.up, new.modules[key].up, atol=1e-9)
    with pytest.raises(MismatchError, match="expected"):
        _run(settings, out=tmp_path / "third", adapter=adapter | {"rank": 4})


@pytest.mark.parametrize("kind", ["lokr", "loha", "diff"])
def test_what_is_no_lora_of_a_layer_is_no_start(kind, settings, tmp_path):
    name, width = "lora_unet_output_blocks_3_1_transformer_blocks_0_attn1_to_q", 64
    tensors = {
        "lokr": {"lokr_w1": torch.ones(2, 2), "lokr_w2": torch.ones(width // 2, width // 2)},
        "loha": {
            f"hada_w{n}_{side}": torch.ones(*((width, 2) if side == "a" else (2, width))) for n in "12" for side in "ab"
        },
        "diff": {"diff": torch.ones(width, width)},
    }[kind]
    save_file({f"{name}.{role}": tensor for role, tensor in tensors.items()}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no LoRA of a layer.*fuse it into a base, then `lora extract`") as caught:
        _run(settings, adapter=SMALL["adapter"] | {"init": tmp_path / "other.safetensors"})
    assert "\n" not in str(caught.value)
    assert not settings["out"].exists()


def test_text_encoders_are_trained_too(settings):
    adapter = SMALL["adapter"] | {"text_encoders": ("text_encoder", "text_encoder_2")}
    _run(settings, adapter=adapter, validation={"every": 0})
    lora = read_lora(settings["out"] / "lora.safetensors")
    for part, count in (("unet", 56), ("text_encoder", 18), ("text_encoder_2", 18)):
        modules = lora.of(part)
        assert len(modules) == count
        assert any(float(module.up.abs().max()) > 0 for module in modules.values())


def test_a_damaged_state_says_what_to_do(settings):
    _run(settings, validation={"every": 0})
    state = settings["out"] / "state/step-000004/state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(InputError, match="delete it and resume from the one before"):
        _run(settings, validation={"every": 0}, resume=True)
    shutil.rmtree(state.parent)
    _run(settings, validation={"every": 0}, resume=True)
