"""generate as a command, on a slim random SDXL: what it writes, that it repeats itself, and how it refuses."""

import json
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdxl_mel.cli import main
from sdxl_mel.config import validated
from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.errors import InputError, MismatchError, ResourceError
from sdxl_mel.evaluation.clips import find_clips
from sdxl_mel.files.audio import read_audio, write_audio
from sdxl_mel.files.containers import read_wav_loop
from sdxl_mel.files.finding import tile_paths
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.header import header_files
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages import generate
from sdxl_mel.synthesis import generator, results_folder
from sdxl_mel.synthesis.watch import Watch, watching
from tests.stages.junction import junction_of_sound

SPEC = PRESETS["mini"]
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
ONE_LEVEL = 1


@pytest.fixture(scope="module")
def slim(slim_sdxl: Path) -> str:
    return str(slim_sdxl)


@pytest.fixture(autouse=True)
def _open_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open the base once for all tests that leave its weights alone."""
    monkeypatch.setattr(generator, "open_base", lambda name, **options: opened(str(name), options["vae"]))


@lru_cache(maxsize=1)
def opened(name: str, vae: str | None) -> Base:
    return open_base(name, vae=vae)


def draw(slim: str, out: Path, **settings: object) -> generate.Report:
    values = {"base": slim, "preset": "mini", "prompt": "slow piano", "steps": 2, "format": "none", "out": out}
    return generate.run(validated(generate.Config, values | settings, "test"))


def levels(folder: Path, name: str = "0001") -> np.ndarray:
    return read_spectrogram(folder / f"{name}.png").levels


def test_a_tile_carries_its_spec_and_what_made_it(slim: str, tmp_path: Path) -> None:
    report = draw(slim, tmp_path, negative_prompt="noise", seed=7, format="flac", plot=True)
    picture = read_spectrogram(tmp_path / "0001.png")
    assert picture.levels.shape == (SPEC.n_mels, SPEC.width, 1)
    assert picture.spec == SPEC
    assert picture.record is not None
    settings = picture.record.settings
    assert (settings["prompt"], settings["negative_prompt"], settings["seed"]) == ("slow piano", "noise", 7)
    assert (settings["sampler"], settings["steps"], settings["guidance"]) == ("euler", 2, 5.0)
    assert {"base unet", "base vae", "base text_encoder", "base text_encoder_2"} == set(picture.record.inputs)
    samples, rate = read_audio(tmp_path / "0001.flac")
    assert (samples.shape, rate) == ((1, SPEC.tile_samples), SPEC.sample_rate)
    listed = json.loads((tmp_path / "manifest.json").read_text())["results"]
    assert listed[0]["sound"] == "0001.flac"
    assert (tmp_path / "playlist.m3u8").read_text().startswith("#EXTM3U\n#EXTINF:4.096,slow piano\n0001.flac")
    assert (tmp_path / "0001-plot.svg").exists()
    assert "4.10 s, seed 7, slow piano" in report.summary()


def test_the_same_command_twice_gives_the_same_bytes(slim: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw(slim, tmp_path / name, num=2)
        draw(slim, tmp_path / name / "long", seconds=6)
    for file in ("0001.png", "0002.png", "long/0001.png", "manifest.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_seed_in_a_batch_equals_the_seed_alone(slim: str, tmp_path: Path) -> None:
    draw(slim, tmp_path / "four", num=4, seed=10, batch=4)
    draw(slim, tmp_path / "alone", seed=12)
    together, alone = levels(tmp_path / "four", "0003"), levels(tmp_path / "alone")
    assert np.abs(together.astype(int) - alone).max() <= ONE_LEVEL
    assert np.abs(levels(tmp_path / "four", "0002").astype(int) - alone).max() > 10


def test_finished_results_are_kept_and_not_drawn_again(
    slim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def interrupted(path: Path, picture: Spectrogram) -> None:
        if len(names) == 2:
            raise KeyboardInterrupt
        names.append(path.stem)
        write_spectrogram(path, picture)

    monkeypatch.setattr(results_folder, "write_spectrogram", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw(slim, tmp_path, num=3, batch=1)
    assert [result["picture"] for result in json.loads((tmp_path / "manifest.json").read_text())["results"]] == [
        "0001.png",
        "0002.png",
    ]
    before = (tmp_path / "0001.png").stat().st_mtime_ns
    names.clear()
    report = draw(slim, tmp_path, num=3, batch=1)
    assert names == ["0003"]
    assert (tmp_path / "0001.png").stat().st_mtime_ns == before
    assert len(report.results) == 3


def test_results_of_another_command_are_not_replaced_unasked(slim: str, tmp_path: Path) -> None:
    draw(slim, tmp_path)
    with pytest.raises(InputError, match="made by another command"):
        draw(slim, tmp_path, steps=1)
    draw(slim, tmp_path, steps=1, overwrite=True)
    record = read_spectrogram(tmp_path / "0001.png").record
    assert record is not None
    assert record.settings["steps"] == 1


def test_a_command_that_is_refused_writes_nothing(slim: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        draw(slim, tmp_path / "new", lora=("gone.safetensors",))
    assert not (tmp_path / "new").exists()
    (tmp_path / "manifest.json").write_text("of another program")
    with pytest.raises(InputError, match="no such file"):
        draw(slim, tmp_path, lora=("gone.safetensors",))
    assert (tmp_path / "manifest.json").read_text() == "of another program"


def test_a_results_folder_is_its_list(slim: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(slim, tmp_path, num=3, steps=1, format="wav", plot=True)
    fewer = draw(slim, tmp_path, num=2, steps=1, format="wav", plot=True)
    assert fewer.notes == ("left over from an earlier command, not in the list: 0003-plot.svg, 0003.png, 0003.wav",)
    for clips in (tile_paths([tmp_path])[0], [clip.path for clip in find_clips(tmp_path, "test")[0]]):
        assert [path.stem for path in clips] == ["0001", "0002"]
    assert "left out, not in its manifest.json: 0003" in capsys.readouterr().err
    other = draw(slim, tmp_path, num=1, steps=2, format="flac", overwrite=True)
    assert "removed: 0001-plot.svg, 0001.wav, 0002-plot.svg, 0002.png, 0002.wav" in other.summary()
    assert {path.name for path in tmp_path.glob("0002*")} == set()


@pytest.mark.parametrize("mode", ["joint", "extend", "independent"])
@pytest.mark.parametrize("loop", [False, True])
def test_a_long_piece_has_its_length_and_its_sound(slim: str, tmp_path: Path, mode: str, loop: bool) -> None:
    report = draw(slim, tmp_path, seconds=9.6, mode=mode, loop=loop, steps=1)
    frames = levels(tmp_path).shape[1]
    # 9.6 s are 600 frames; a loop is rounded to whole latent columns that the UNet can halve twice.
    assert frames == (608 if loop else 600)
    result = report.results[0]
    assert result.seconds == frames * SPEC.hop_length / SPEC.sample_rate
    assert len(result.seam_scores) >= 2
    assert (result.junction is not None) == loop
    assert "seam z" in report.summary()


def test_a_piece_is_heard_while_it_is_drawn_and_what_is_heard_is_its_file(slim: str, tmp_path: Path) -> None:
    """A block of sound takes 1024 frames: of 1500 they are there when seven of nine views are drawn."""
    steps: list[int] = []
    heard: list[tuple[int, np.ndarray]] = []

    def on_sound(file: Path, samples: np.ndarray, rate: int) -> None:
        write_audio(tmp_path / "block.wav", samples, rate)
        heard.append((len(steps), read_audio(tmp_path / "block.wav")[0]))

    with watching(Watch(lambda step: steps.append(step.total), on_sound)):
        draw(slim, tmp_path, seconds=24, mode="extend", steps=2, format="wav", method="fast")
    assert steps[0] == len(steps) == 18
    assert [taken for taken, _ in heard] == [14, 18]
    samples, _ = read_audio(tmp_path / "0001.wav")
    np.testing.assert_array_equal(np.concatenate([block for _, block in heard], axis=1), samples)


@pytest.mark.parametrize(("seconds", "frames"), [(None, 256), (2.0, 128)])
def test_a_short_loop_is_drawn_on_a_circle(slim: str, tmp_path: Path, seconds: float | None, frames: int) -> None:
    draw(slim, tmp_path, seconds=seconds, loop=True, format="wav")
    assert levels(tmp_path).shape[1] == frames
    assert read_wav_loop(tmp_path / "0001.wav") == (0, frames * SPEC.hop_length - 1)
    described = json.loads((tmp_path / "0001-loop.json").read_text())
    beats = described["tempo_bpm"] / 60 * described["seconds"]
    assert beats == pytest.approx(len(described["beats"]), abs=1e-3)
    assert junction_of_sound(tmp_path / "0001.wav", frames, SPEC) < 1


def test_a_result_shorter_than_a_tile_is_its_beginning(slim: str, tmp_path: Path) -> None:
    draw(slim, tmp_path / "whole")
    draw(slim, tmp_path / "short", seconds=1.6)
    np.testing.assert_array_equal(levels(tmp_path / "short"), levels(tmp_path / "whole")[:, :100])


@pytest.mark.parametrize("flags", [{"dtype": "bf16"}, {"offload": True, "slicing": True}])
def test_small_cards_get_nearly_the_same_picture(
    slim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, object]
) -> None:
    draw(slim, tmp_path / "plain")
    monkeypatch.setattr(generator, "open_base", open_base)
    draw(slim, tmp_path / "small", **flags)
    difference = np.abs(levels(tmp_path / "small").astype(int) - levels(tmp_path / "plain"))
    assert difference.mean() < (3.0 if "dtype" in flags else 0.01)


def test_a_schedule_and_a_travel_change_the_piece(slim: str, tmp_path: Path) -> None:
    draw(slim, tmp_path / "plain", seconds=8, seed=3, prompt="aaaa")
    draw(slim, tmp_path / "travel", seconds=8, seed=3, prompt="aaaa", prompt_to="zz")
    draw(slim, tmp_path / "schedule", seconds=8, seed=3, prompt=None, schedule="0:00 aaaa | 0:04 zz")
    plain, travel, schedule = (levels(tmp_path / name).astype(int) for name in ("plain", "travel", "schedule"))
    # Views of the first seconds hear the first text alone, but share the VAE window and the guidance of none other.
    assert np.abs(schedule - plain)[:, :120].mean() < np.abs(schedule - plain)[:, -120:].mean()
    assert (travel != plain).any()


def test_tiles_travel_from_one_prompt_to_another(slim: str, tmp_path: Path) -> None:
    draw(slim, tmp_path / "travel", num=3, prompt="aaaa", prompt_to="zz")
    draw(slim, tmp_path / "first", prompt="aaaa")
    draw(slim, tmp_path / "last", prompt="zz", seed=2)
    for name, number in (("first", "0001"), ("last", "0003")):
        distance = np.abs(levels(tmp_path / "travel", number).astype(int) - levels(tmp_path / name)).max()
        assert distance <= ONE_LEVEL


def test_the_best_of_several_is_one_of_them(slim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdxl_mel.synthesis.session.open_judge", lambda _: None)
    report = draw(slim, tmp_path / "best", best_of=3)
    result = report.results[0]
    assert len(result.inconsistency) == 3
    best = int(np.argmin(result.inconsistency))
    draw(slim, tmp_path / "alone", seed=result.candidate_seed)
    assert (result.candidate_seed == 0) == (best == 0)
    assert np.abs(levels(tmp_path / "best").astype(int) - levels(tmp_path / "alone")).max() <= ONE_LEVEL
    again = draw(slim, tmp_path / "best", best_of=3)
    assert again.results == report.results


def lora_file(path: Path, **header: object) -> Path:
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(4, 64, generator=generator), torch.randn(64, 4, generator=generator)
    module = LoraModule(down=down, up=up, alpha=4.0)
    write_lora(path, Lora({("unet", LAYER): module}, LoraHeader(**header)))
    return path


def test_what_is_not_used_of_a_lora_and_what_was_taken_for_granted_is_reported(slim: str, tmp_path: Path) -> None:
    file = lora_file(tmp_path / "lora.safetensors")
    tensors = {name: tensor for name, tensor in load_file(file).items() if not name.endswith(".alpha")}
    save_file(tensors | {"bundle_emb.word.clip_l": torch.zeros(2, 8)}, file)
    report = draw(slim, tmp_path / "out", lora=(str(file),), steps=1)
    assert [each.what for each in report.skipped] == [str(file)]
    assert any("1 of 1 modules hold no alpha" in note for note in report.notes)
    assert report.exit_code == 3
    assert "hold no alpha" in report.summary()


def test_a_lora_brings_its_spec_and_anchor_and_changes_the_picture(
    slim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "open_base", open_base)
    lora = lora_file(tmp_path / "lora.safetensors", spec=SPEC, anchor="mel spectrogram", clip_skip=1)
    draw(slim, tmp_path / "with", lora=lora, preset=None)
    draw(slim, tmp_path / "without", prompt="mel spectrogram, slow piano", clip_skip=1)
    record = read_spectrogram(tmp_path / "with" / "0001.png").record
    assert record is not None
    assert record.settings["texts"] == [[0.0, "mel spectrogram, slow piano"]]
    assert record.settings["clip_skip"] == 1
    assert len(record.inputs["lora"]) == 64
    assert (levels(tmp_path / "with") != levels(tmp_path / "without")).any()
    draw(slim, tmp_path / "off", lora=lora, preset=None, lora_scale=0)
    assert np.abs(levels(tmp_path / "off").astype(int) - levels(tmp_path / "without")).max() <= ONE_LEVEL


def test_a_few_step_lora_is_drawn_as_it_asks_beside_ours(
    slim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "open_base", open_base)
    ours = lora_file(tmp_path / "ours.safetensors", spec=SPEC, anchor="mel spectrogram", drawing=Drawing(guidance=3.0))
    few = lora_file(tmp_path / "few.safetensors", drawing=Drawing("euler", None, 0.0, (999, 499)))
    both = {"lora": (str(ours), f"{few}:0.5"), "preset": None, "steps": None}
    assert not draw(slim, tmp_path / "asked", **both).notes
    record = read_spectrogram(tmp_path / "asked" / "0001.png").record
    assert record is not None
    drawn = {name: record.settings[name] for name in ("sampler", "steps", "guidance", "timesteps", "lora_scale")}
    assert drawn == {"sampler": "euler", "steps": 2, "guidance": 0.0, "timesteps": "999,499", "lora_scale": [1.0, 0.5]}
    assert {"lora 1", "lora 2"} < set(record.inputs)
    stated = draw(slim, tmp_path / "stated", **both | {"guidance": 2.0})
    assert f"--guidance 2 instead of 0, for which {few} asks" in stated.summary()
    preset = draw(slim, tmp_path / "preset", sampler_preset="lcm", steps=1)
    assert preset.notes == ("--steps 1 instead of 4, for which --sampler-preset lcm asks",)


def test_a_fused_folder_says_how_it_was_trained(slim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fused = tmp_path / "fused"
    shutil.copytree(slim, fused)
    header = LoraHeader(spec=SPEC, anchor="mel spectrogram", clip_skip=1, drawing=Drawing(guidance=2.5))
    for name, content in header_files(header).items():
        (fused / name).write_bytes(content)
    monkeypatch.setattr(generator, "open_base", open_base)
    for out, options, guidance in (
        ("unsaid", {}, 2.5),
        ("said", {"guidance": 4.0}, 4.0),
        ("same", {"guidance": 2.5}, 2.5),
    ):
        draw(str(fused), tmp_path / out, preset=None, **options)
        record = read_spectrogram(tmp_path / out / "0001.png").record
        assert record is not None
        assert record.settings["texts"] == [[0.0, "mel spectrogram, slow piano"]]
        assert (record.settings["clip_skip"], record.settings["guidance"]) == (1, guidance)
    assert np.array_equal(levels(tmp_path / "unsaid"), levels(tmp_path / "same"))
    assert not np.array_equal(levels(tmp_path / "unsaid"), levels(tmp_path / "said"))


def test_what_does_not_belong_together_is_refused(slim: str, tmp_path: Path) -> None:
    lora = lora_file(tmp_path / "web.safetensors", spec=PRESETS["web"], anchor="x")
    with pytest.raises(MismatchError, match=r"sample_rate 22050 against 16000"):
        draw(slim, tmp_path / "a", lora=lora)
    with pytest.raises(MismatchError, match="--anchor y: the model was trained with 'x'"):
        draw(slim, tmp_path / "b", lora=lora, preset=None, anchor="y")
    other = lora_file(tmp_path / "other.safetensors", spec=SPEC, base={"unet": "0" * 64})
    with pytest.raises(MismatchError, match="trained on another base .*its unet differ"):
        draw(slim, tmp_path / "c", lora=other)
    with pytest.raises(InputError, match="state it with --preset"):
        draw(slim, tmp_path / "d", preset=None)


def prompts_file(folder: Path, *prompts: str) -> Path:
    path = folder / "prompts.txt"
    path.write_text("\n".join(prompts))
    return path


def test_a_prompt_over_the_token_limit_is_read_in_chunks_and_leaves_others_alone(slim: str, tmp_path: Path) -> None:
    long = "piano, " * 10 + "the very last words"
    report = draw(slim, tmp_path / "together", prompt=None, prompts=prompts_file(tmp_path, long, "slow piano"), steps=1)
    assert "tokens: read in chunks of 75" in report.notes[0]
    draw(slim, tmp_path / "alone", prompt="slow piano", steps=1)
    np.testing.assert_array_equal(levels(tmp_path / "together", "0002"), levels(tmp_path / "alone"))
    draw(slim, tmp_path / "cut", prompt="piano, " * 10, steps=1)
    assert (levels(tmp_path / "cut") != levels(tmp_path / "together")).any()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt", "a", "--steps", "0"], "steps"),
        (["--prompt", "a", "--sampler", "eulr"], "did you mean 'euler'"),
        (["--prompt", "a", "--preset", "minni"], "did you mean 'mini'"),
        (["--prompts", "empty.txt"], "holds no prompt"),
        (["--prompts", "missing.txt"], "cannot be read"),
        (["--prompts", "bad.csv"], "unknown column 'promt'"),
        (["--prompt", "a", "--prompts", "empty.txt"], "give one of --prompt, --prompts and --schedule"),
        ([], "give one of --prompt, --prompts and --schedule"),
        (["--prompt", "a", "--seconds", "0.1"], "give at least 0.51"),
        (["--prompt", "a", "--seconds", "9", "--overlap", "100%"], "does not fit views"),
        (["--schedule", "0:00 a | 0:30 b", "--seconds", "9"], "the piece ends at 8.99"),
        (["--schedule", "a"], "--schedule needs --seconds"),
        (["--prompt", "(a:1.3"], "a bracket is not closed"),
        (["--prompt", "a", "--ab"], "--ab needs --lora"),
        (["--prompt", "a", "--device", "cuda:9"], "not on this machine"),
        (["--prompt", "a", "--device", "gpu"], "'gpu': no device; this machine has cpu"),
        (["--prompt", "a", "--lora", "missing.safetensors"], "missing.safetensors"),
        (["--prompt", "a", "--vae", "nowhere"], "nowhere"),
        (["--prompt", "a", "--guidance-interval", "0.8", "0.3"], "takes two noise levels"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    slim: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n# nothing\n")
    Path("bad.csv").write_text("promt\nslow piano\n")
    preset = [] if "--preset" in flags else ["--preset", "mini"]
    steps = [] if "--steps" in flags else ["--steps", "2"]
    code = main(["generate", "--base", slim, *preset, *steps, *flags, "--out", "out", "--format", "none"])
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert "Traceback" not in error
    assert not list(Path("out").glob("*.png"))


def test_an_unwritable_folder_is_known_before_the_models_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((InputError, ResourceError), match="file"):
        draw("no such base", tmp_path / "file" / "out")


def test_a_full_disk_keeps_what_is_finished(slim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def full(path: Path, mode: str = "r", *more: object, **others: object) -> object:
        if "0002.png." in path.name and "w" in mode:
            raise OSError(28, "No space left on device")
        return real(path, mode, *more, **others)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ResourceError, match="the disk is full"):
        draw(slim, tmp_path, num=3)
    assert [path.name for path in tmp_path.glob("*.png")] == ["0001.png"]
    assert len(json.loads((tmp_path / "manifest.json").read_text())["results"]) == 1
