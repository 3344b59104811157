"""The plan of the demo: every line is a command that its stage accepts, and a finished step is not done again."""

from pathlib import Path

import numpy as np
import pytest

from sdxl_mel.commands import parse_command
from sdxl_mel.corpus.instruments import LEFT_OUT
from sdxl_mel.demo.findings import Findings
from sdxl_mel.demo.page import long_pieces, training_curves
from sdxl_mel.demo.plan import LINES, PREPARE, Size, place, quick_dtype, step_of
from sdxl_mel.demo.run import known_prompts, write_inputs
from sdxl_mel.demo.steps import Step, config_path, run_steps
from sdxl_mel.errors import InputError
from sdxl_mel.files.audio import write_audio
from sdxl_mel.files.dataset import Dataset, Item, write_dataset
from sdxl_mel.files.evaluation import Evaluation
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import PRESETS

VALUES = {
    "seed": "0",
    "tracks": "10",
    "steps": "10",
    "anchor": "mel spectrogram",
    "song": "solo banjo",
    "dtype": "fp32",
    "config": "mini.toml",
}


@pytest.mark.parametrize("line", [PREPARE, *LINES], ids=lambda line: line.name)
def test_every_command_is_one_that_its_stage_accepts(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mini.toml").write_text('base = "mini"\n')
    step = step_of(line, Path("demo"), VALUES)
    parse_command(step.stage, step.words)
    assert "{" not in step.command


def test_the_size_grows_with_the_minutes():
    assert Size.of(10) == Size(tracks=360, steps=300, known=64)
    assert Size.of(5) == Size(tracks=180, steps=150, known=32)
    assert Size.of(0.01) == Size(tracks=10, steps=10, known=4)


def test_numbers_are_those_the_processor_is_quick_with(monkeypatch):
    for has_tiles, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda has=has_tiles: {"amx_bf16": has})
        assert quick_dtype() == expected
    monkeypatch.delattr("torch.cpu.get_capabilities")
    assert quick_dtype() == "fp32"


def test_known_prompts_ask_for_nothing_new():
    prompts = known_prompts(12, seed=0)
    assert len(prompts) == 12
    assert not any(name in prompt for prompt in prompts for name in LEFT_OUT)


def findings(*, new: tuple[int, int], known: tuple[int, int], change: tuple[float, float, float]) -> Findings:
    """Return findings of 8 tiles for banjo and harmonica each, and of 64 for what is known: before, after."""
    evaluations = {}
    for model, banjo, kept in zip(("base", "tuned"), new, known):
        each = {"by_instrument": {"banjo": [banjo, 8], "harmonica": [1, 8], "piano": [3, 8]}}
        value, low, high = change
        evaluations[model, "new"] = evaluation(
            instruments_each={"value": 0.5, "n": 24, "details": each},
            fad_change={"value": value, "low": low, "high": high, "n": 16},
        )
        right = {str(prompt): float(prompt < kept) for prompt in range(64)}
        evaluations[model, "known"] = evaluation(instruments_all={"value": kept / 64, "n": 64, "by_prompt": right})
    return Findings(evaluations)


def evaluation(**metrics: dict) -> Evaluation:
    """Return an evaluation of some metrics and nothing else."""
    return Evaluation.model_validate(
        {
            "record": Record(stage="evaluate", settings={}, inputs={}).model_dump(),
            "versions": {},
            "metrics": {name: {"method": "m", "meaning": "m"} | metric for name, metric in metrics.items()},
            "embedders": {},
            "sets": {},
            "clips": [],
        }
    )


def test_what_was_found_is_said_in_three_sentences():
    learned, kept, nearer = findings(new=(0, 6), known=(60, 50), change=(-0.03, -0.05, -0.01)).sentences()
    assert "played it in 1 of 16 clips, the LoRA in 7" in learned
    assert "the banjo (6 of 8) best and the harmonica (1 of 8) least" in learned
    assert "in 60 of 64 clips, the LoRA in 50: it has forgotten 10" in kept
    assert "is nearer to real music" in nearer


def test_what_is_not_sure_is_said_to_be_so():
    _, kept, unsure = findings(new=(0, 6), known=(60, 59), change=(-0.01, -0.03, 0.01)).sentences()
    assert kept.endswith("it may have forgotten 1.")
    kept = findings(new=(0, 6), known=(59, 60), change=(-0.01, -0.03, 0.01)).sentences()[1]
    assert kept.endswith("in 59 of 64 clips, the LoRA in 60: none is forgotten.")
    assert unsure.endswith("cannot be told from these clips.")
    assert "farther from real" in findings(new=(0, 6), known=(1, 1), change=(0.02, 0.01, 0.03)).sentences()[-1]


def test_what_was_not_measured_is_not_said():
    nothing = Findings({(model, kind): evaluation() for model in ("base", "tuned") for kind in ("new", "known")})
    assert nothing.sentences() == []


def test_a_folder_of_other_prompts_is_refused(tmp_path):
    item = Item(file="test/one.png", captions=("mel spectrogram, solo banjo",), track="one")
    folder = place(tmp_path, "dataset")
    (folder / "test").mkdir(parents=True)
    (folder / item.file).touch()
    write_dataset(folder, Dataset(PRESETS["mini"], "mel spectrogram", {"test": [item]}, Record(stage="prepare")))
    for _ in range(2):
        write_inputs(tmp_path, 4, 0)
    with pytest.raises(InputError, match=r"known\.jsonl: .*other prompts \(4 in place of 5\); choose another --out"):
        write_inputs(tmp_path, 5, 0)


def test_a_finished_step_is_found_done_and_other_settings_are_refused(tmp_path):
    ran = []

    def run(step: Step) -> str:
        ran.append(step.name)
        return "well"

    first, second = Step("one", "why", "stitch", ("--a", "1")), Step("two", "why", "stitch", ("--b", "2"))
    assert [done.summary for done in run_steps([first], tmp_path, 1, 2, run)] == ["well"]
    assert [done.step.name for done in run_steps([first, second], tmp_path, 1, 2, run)] == ["one", "two"]
    assert ran == ["one", "two"]
    with pytest.raises(InputError, match=r"01-one\.json: .*made with other settings .*--a 1.*another --out"):
        list(run_steps([Step("one", "why", "stitch", ("--a", "3"))], tmp_path, 1, 2, run))


def test_long_pieces_are_players_with_their_seams_marked(tmp_path):
    """The joins are those of the record: stated by `stitch`, by the length that `generate` was asked for otherwise."""
    joint, stitched = place(tmp_path, "long") / "0001.png", place(tmp_path, "stitched")
    levels = np.zeros((128, 512, 1), np.uint8)
    for path, stage, settings in (
        (joint, "generate", {"seconds": 8.192, "mode": "joint"}),
        (stitched, "stitch", {"seams": [[125, 50]]}),
    ):
        write_spectrogram(path, Spectrogram(levels, PRESETS["mini"], Record(stage=stage, settings=settings, inputs={})))
    for sound in (joint.with_suffix(".wav"), place(tmp_path, "stitched_sound")):
        write_audio(sound, np.zeros((1, 1600), np.float32), 16000)
    shown = "".join(long_pieces(tmp_path, "seam z +0.1"))
    assert shown.count("<mel-player") == 2
    assert 'marks="[[2.048, 4.096], [4.096, 6.144]]"' in shown
    assert 'marks="[[2.0, 2.8]]"' in shown


def test_the_page_draws_a_run_whose_last_line_was_cut_off(tmp_path):
    run = place(tmp_path, "run")
    run.mkdir()
    whole = '{"step": 1, "loss": 0.5, "squared_error": 0.4, "validation/held out": [0.3, 0.5]}\n'
    (run / "metrics.jsonl").write_text(whole + '{"step": 2, "lo')
    assert "held out" in training_curves(tmp_path)


def test_the_demo_finds_the_configs_of_the_clone():
    assert config_path("mini").samefile(Path(__file__).parents[2] / "configs" / "mini.toml")
