"""The tasks that train from a cache as whole runs on the slim SDXL: what they leave, resuming bit for bit, refusals."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from sdxl_mel.commands import parse_command
from sdxl_mel.config import validated
from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.files.run import checkpoints
from sdxl_mel.files.run_header import read_run
from sdxl_mel.models.base import open_base
from sdxl_mel.models.family import TEXT_ENCODERS
from sdxl_mel.models.small_decoder import read_small_decoder
from sdxl_mel.models.text_encoding import encode_prompts
from sdxl_mel.stages import fuse, train
from sdxl_mel.training.loop import Loop
from sdxl_mel.training.tasks import TASKS
from tests.caches import SMALL

SMALLER = {
    "student": {"student": {"block_out_channels": (16, 32, 48), "middle": False}},
    "text-encoder": {"encoder": {"layers": (2, 2)}, "mixed": 0.5},
    "small-decoder": {"decoder": {"block_out_channels": (4, 4, 8, 8)}, "latent_noise": 0.2},
    "decoder": {
        "loss": {"sizes": (4, 8)},
        "crop": 32,
        "hardware": {"gradient_checkpointing": True},
        "adversarial": {"weight": 2.0, "warmup": 1},
        "redrawn": {"steps": 3, "share": 0.4},
    },
    "refiner": {"refiner": {"widths": (8, 8), "middle": 1}, "redrawn": {"steps": 3, "low": 0.4}},
}
TASK_NAMES = list(SMALLER)
SHARED = {"steps": 4, "batch": 2, "save_every": 2, "trackers": (), "validation": {"every": 4, "clips": 1}}


@pytest.fixture(scope="module")
def run_of(slim_sdxl, small_cache):
    """Return a function that trains a task into a folder."""

    def run(task, out, **changes):
        settings = SHARED | SMALLER[task] | {"task": task, "base": str(slim_sdxl), "cache": small_cache, "out": out}
        if task in ("decoder", "refiner"):
            settings["dataset"] = small_cache.parent / "dataset"
        return train.run(validated(TASKS[task].settings, settings | changes, "test"))

    return run


@pytest.fixture(scope="module", params=TASK_NAMES)
def finished(request, run_of, tmp_path_factory):
    """Return (task, folder) of a run that has ended."""
    out = tmp_path_factory.mktemp("finished") / "run"
    run_of(request.param, out)
    return request.param, out


def _weights(out):
    return load_file(checkpoints(out)[4])


class _Killed(BaseException):
    pass


def test_killed_and_resumed_is_bit_for_bit_the_run_that_was_not(finished, run_of, tmp_path, monkeypatch):
    task, whole = finished
    real = Loop.step

    def dies(loop, *rest):
        if loop.state.step == 3:
            raise _Killed
        return real(loop, *rest)

    with monkeypatch.context() as patched, pytest.raises(_Killed):
        patched.setattr(Loop, "step", dies)
        run_of(task, tmp_path / "run")
    run_of(task, tmp_path / "run", resume=True)
    one, two = _weights(whole), _weights(tmp_path / "run")
    assert one.keys() == two.keys()
    assert all(torch.equal(each, two[name]) for name, each in one.items())
    place = TASKS[task].result
    files = {path.relative_to(whole): path.read_bytes() for path in sorted((whole / place).rglob("*.safetensors"))}
    assert files
    assert all((tmp_path / "run" / name).read_bytes() == content for name, content in files.items())


def test_it_learns_something_in_micro_batches_as_in_one(finished, run_of, tmp_path):
    task, whole = finished
    run_of(task, tmp_path / "run", micro_batch=1)
    first, one, two = load_file(checkpoints(whole)[2]), _weights(whole), _weights(tmp_path / "run")
    moved = sum(float((each - first[name]).abs().sum()) for name, each in one.items())
    apart = sum(float((each - two[name]).abs().sum()) for name, each in one.items())
    assert moved > 0
    assert apart < 0.02 * moved
    results = read_run(whole).results
    assert [name for name in results if name.endswith("held out")]
    assert (whole / "README.md").read_text().startswith("# run")


def test_a_student_is_a_base_for_loras_and_fusing(run_of, small_cache, tmp_path):
    run_of("student", tmp_path / "run", steps=1, save_every=1, validation={"every": 0})
    base = open_base(tmp_path / "run" / "base")
    assert tuple(base.unet.config.block_out_channels) == (16, 32, 48)
    assert base.unet.config.mid_block_type is None
    assert base.spec == SMALL
    lora = {"steps": 1, "batch": 1, "trackers": (), "adapter": {"rank": 1}, "validation": {"every": 0}}
    lora |= {"base": str(tmp_path / "run" / "base"), "cache": small_cache, "out": tmp_path / "lora"}
    train.run(validated(TASKS["lora"].settings, lora, "test"))
    words = ["--base", str(tmp_path / "run" / "base"), "--lora", str(tmp_path / "lora" / "lora.safetensors")]
    fuse.run(parse_command("fuse", [*words, "--out", str(tmp_path / "fused"), "--verify"]))
    assert open_base(tmp_path / "fused").unet.config.mid_block_type is None


def test_smaller_text_encoders_are_those_of_the_base_they_wrote(run_of, slim_sdxl, tmp_path):
    run_of("text-encoder", tmp_path / "run", steps=1, save_every=1, validation={"every": 0})
    whole, small = (open_base(place, TEXT_ENCODERS) for place in (slim_sdxl, tmp_path / "run" / "base"))
    assert [encoder.config.num_hidden_layers for encoder in small.text_encoders] == [2, 2]
    text = ["mel spectrogram, train 3"]
    made, wanted = encode_prompts(small, text), encode_prompts(whole, text)
    assert [each.shape for each in made] == [each.shape for each in wanted]
    assert not torch.equal(made.prompt_embeds, wanted.prompt_embeds)
    assert open_base(tmp_path / "run" / "base").identity_of("unet") == whole.identity_of("unet")


def test_a_small_decoder_is_carried_by_a_base_and_what_is_fused_of_it(run_of, slim_sdxl, tmp_path):
    run_of("small-decoder", tmp_path / "run", steps=1, save_every=1, validation={"every": 0})
    base = shutil.copytree(slim_sdxl, tmp_path / "base")
    shutil.copytree(tmp_path / "run" / "small_decoder", base / "small_decoder")
    decoder = read_small_decoder(base)
    assert decoder is not None
    assert decoder.config.vae == open_base(base, ("vae",)).identity_of("vae")
    assert open_base(base).identity == open_base(slim_sdxl).identity
    run_of("text-encoder", tmp_path / "more", base=str(base), steps=1, validation={"every": 0})
    again = read_small_decoder(tmp_path / "more" / "base")
    assert again is not None
    assert torch.equal(again.post_quant_conv.weight, decoder.post_quant_conv.weight)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("student", {"student": {"block_out_channels": (16, 32, 40)}}, "no whole number of heads"),
        ("text-encoder", {"encoder": {"layers": (2,)}}, "encoder.layers: found 1; .* has 2 text encoders"),
        ("text-encoder", {"encoder": {"layers": (2, 4)}}, "layers: found 4; this text encoder has 3"),
        ("small-decoder", {"decoder": {"block_out_channels": (4, 4, 8, 32)}}, "32 of 16 is more than the VAE has"),
        ("small-decoder", {"steps": 0}, "steps: found 0"),
        ("student", {"layers": 3}, "unknown setting 'layers'"),
        ("decoder", {"crop": 36}, "crop: found 36; expected a multiple of 8, at least 16"),
        ("decoder", {"dataset": "nowhere"}, "nowhere.*no prepared dataset"),
    ],
)
def test_settings_that_cannot_be_are_one_line(run_of, tmp_path, task, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        run_of(task, tmp_path / "run", **changes)
    assert "\n" not in str(caught.value)


def test_a_cache_of_another_base_is_refused(run_of, tmp_path):
    from tests.tiny_models import write_tiny_sdxl

    other = write_tiny_sdxl(tmp_path / "other", seed=1, slim=True)
    for task in TASK_NAMES:
        with pytest.raises(MismatchError, match="made with another"):
            run_of(task, tmp_path / task, base=str(other))


def test_a_run_of_another_task_is_not_resumed(finished, run_of):
    task, out = finished
    other = next(name for name in TASK_NAMES if name != task)
    with pytest.raises(MismatchError, match=f"its run is one of --task {task}"):
        run_of(other, out, resume=True)
