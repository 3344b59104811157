"""The stage on small folders of synthetic music, with the embedder that needs no model."""

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdxl_mel.cli import run_stage
from sdxl_mel.errors import InputError
from sdxl_mel.evaluation.clips import Decoding, find_clips
from sdxl_mel.evaluation.embed_clips import embed_sets
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.metrics.embedders.mel_statistics import MelEmbedder
from sdxl_mel.metrics.signal_checks import FACTS
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages.evaluate import Config, run
from tests.metrics.simulated import SAMPLE_RATE, chord, drums, noise, tone

SECONDS = 2.0


def sounds(seed):
    """Return one clip of each of three kinds; other seeds give other music."""
    generator = np.random.default_rng(seed)
    root = 150.0 + 200.0 * generator.random()
    rhythm = 80.0 + 80.0 * generator.random()
    bed = 0.003 * generator.standard_normal(int(SECONDS * SAMPLE_RATE)).astype(np.float32)
    third = generator.choice([1.19, 1.26, 1.33])
    glide = tone(2 * root, SECONDS) * np.linspace(generator.random(), generator.random(), len(bed)).astype(np.float32)
    kinds = {"piano": chord((root, root * third, root * 1.5), SECONDS), "drums": drums(SECONDS, seed, tempo=rhythm)}
    return {name: sound + bed for name, sound in (kinds | {"flute": glide}).items()}


def write(path, samples, rate=SAMPLE_RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.T if samples.ndim > 1 else samples, rate, subtype="FLOAT")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return a folder with 9 generated clips, one of them planted, and 18 reference and training clips each."""
    root = tmp_path_factory.mktemp("world")
    for folder, first, count in (("generated", 0, 3), ("reference", 100, 6), ("training", 200, 6)):
        for seed in range(first, first + count):
            for name, sound in sounds(seed).items():
                write(root / folder / f"{name}-{seed}.wav", sound)
    planted = 0.7 * sounds(203)["drums"] + noise(SECONDS, 9, 0.002)
    write(root / "generated" / "planted.wav", planted)
    names = sorted(path.name for path in (root / "generated").iterdir())
    with (root / "prompts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "prompt"])
        for name in reversed(names):
            kind = "drums" if name == "planted.wav" else name.split("-")[0]
            writer.writerow([name, f"mel spectrogram, {kind} music"])
    return root


def config(world, out, **more):
    values = {
        "generated": world / "generated",
        "reference": world / "reference",
        "prompts": world / "prompts.csv",
        "embedder": ("mel",),
        "cache": world / "cache",
        "report": False,
        "out": out,
    }
    return Config(**values | more)


@pytest.fixture(scope="module")
def report(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return run(config(world, out, training=world / "training", report=True))


def test_metrics_json_holds_every_metric_with_its_interval(report):
    content = json.loads((report.out / "metrics.json").read_text())
    assert content["schema_version"] == 2
    assert content["metrics"]["fad"]["value"] >= 0
    for name in ("fad", "kad", "diversity", "reference_similarity", "diversity_within", "loudness"):
        metric = content["metrics"][name]
        assert metric["low"] <= metric["value"] <= metric["high"]
        assert metric["n"] > 0
        assert metric["meaning"]
    assert len(content["clips"]) == 10
    assert set(content["sets"]) == {"generated", "reference", "training"}


def test_the_planted_copy_is_flagged_and_nothing_else(report):
    copies = report.evaluation.metrics["copies"]
    assert [pair[:2] for pair in copies.details.model_extra["pairs"]] == [["planted.wav", "drums-203.wav"]]
    assert copies.value == 1
    assert any("planted.wav is a copy" in warning for warning in report.evaluation.warnings)


def test_held_out_tracks_are_not_flagged(world, tmp_path):
    held_out = tmp_path / "held out"
    for seed in range(300, 303):
        for name, sound in sounds(seed).items():
            write(held_out / f"{name}-{seed}.wav", sound)
    found = run(config(world, tmp_path / "out", generated=held_out, prompts=None, training=world / "training"))
    assert found.evaluation.metrics["copies"].value == 0


def test_prompts_are_paired_by_manifest(report):
    prompts = {clip["file"]: clip["prompt"] for clip in report.evaluation.clips}
    assert prompts["piano-0.wav"] == "piano music"
    assert prompts["planted.wav"] == "drums music"


def test_the_report_needs_no_network_and_holds_players(report):
    page = (report.out / "report.html").read_text()
    assert page.count("<mel-player") >= 10
    assert page.count("<svg") >= 4
    assert 'src="http' not in page
    assert "planted.wav" in page


def test_the_same_inputs_give_the_same_bytes(world, report, tmp_path):
    again = run(config(world, tmp_path / "a", training=world / "training", cache=tmp_path / "fresh"))
    assert (again.out / "metrics.json").read_bytes() == (report.out / "metrics.json").read_bytes()
    assert (again.out / "clips.csv").read_bytes() == (report.out / "clips.csv").read_bytes()


def test_a_corrupt_cache_is_made_again(world, report, tmp_path):
    cache = tmp_path / "cache"
    first = run(config(world, tmp_path / "a", cache=cache))
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    second = run(config(world, tmp_path / "b", cache=cache))
    assert (first.out / "metrics.json").read_bytes() == (second.out / "metrics.json").read_bytes()


def test_a_cache_that_lacks_a_fact_is_made_again(world, tmp_path):
    def embed(facts):
        return embed_sets({"one": clips}, [MelEmbedder()], Decoding(), tmp_path, facts)["one"].facts

    clips = find_clips(world / "reference", "test")[0][:2]
    fewer, more = (embed(facts) for facts in (FACTS[:-2], FACTS))
    assert [len(each) for each in (*fewer, *more)] == 2 * [len(FACTS) - 2] + 2 * [len(FACTS)]
    assert all(one[name] == two[name] for one, two in zip(fewer, more) for name in one)


def test_the_record_holds_a_hash_of_every_set_and_the_settings_that_decide(world, report, tmp_path):
    record = report.evaluation.record
    assert set(record.inputs) == {"generated", "reference", "training", "prompts"}
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in record.inputs.values())
    assert record.settings.keys() == {"embedder", "inversion", "format", "anchor", "instruments", "seed"}
    shutil.copytree(world / "generated", tmp_path / "generated")
    changed = tmp_path / "generated" / "piano-0.wav"
    samples, rate = soundfile.read(changed, dtype="float32")
    write(changed, 0.5 * samples, rate)
    other = run(config(world, tmp_path / "out", generated=tmp_path / "generated")).evaluation.record
    assert other.inputs["generated"] != record.inputs["generated"]
    assert {name: other.inputs[name] for name in ("reference", "prompts")} == {
        name: record.inputs[name] for name in ("reference", "prompts")
    }


def test_clips_that_cannot_be_used_are_listed_and_never_scored(world, tmp_path):
    bad = tmp_path / "generated"
    for name, sound in sounds(0).items():
        write(bad / f"{name}.wav", sound)
    write(bad / "silent.wav", np.zeros(32000, np.float32))
    write(bad / "nan.wav", np.full(32000, np.nan, np.float32))
    write(bad / "one-sample.wav", np.ones(1, np.float32))
    (bad / "text.wav").write_text("hello")
    (bad / "empty.flac").write_bytes(b"")
    (bad / "plain.png").write_bytes(b"\x89PNG\r\n")
    found = run(config(world, tmp_path / "out", generated=bad, prompts=None))
    left_out = {each.what for each in found.skipped}
    assert left_out == {
        f"generated/{name}"
        for name in ("silent.wav", "nan.wav", "one-sample.wav", "text.wav", "empty.flac", "plain.png")
    }
    assert found.evaluation.sets["generated"].used == 3
    assert found.evaluation.sets["generated"].left_out == 6
    assert found.exit_code == 3


def test_clips_whose_numbers_are_not_finite_are_listed(world, tmp_path):
    """Samples that overflow a square in float32, and a rate that leaves too little to measure."""
    bad = tmp_path / "generated"
    for name, sound in sounds(0).items():
        write(bad / f"{name}.wav", sound)
    write(bad / "huge.wav", np.full(32000, 1e30, np.float32))
    write(bad / "larger.wav", 3e38 * sounds(1)["piano"])
    found = run(config(world, tmp_path / "out", generated=bad, prompts=None))
    assert {each.what for each in found.skipped} == {"generated/huge.wav", "generated/larger.wav"}
    assert len(found.evaluation.clips) == 3
    assert found.exit_code == 3


def test_a_clip_under_the_gate_has_no_loudness(world, tmp_path):
    for name, sound in sounds(0).items():
        write(tmp_path / "some" / f"{name}.wav", sound)
    click = np.zeros(32000, np.float32)
    click[5] = 2e-3
    write(tmp_path / "some" / "click.wav", click)
    found = run(config(world, tmp_path / "out", generated=tmp_path / "some", prompts=None)).evaluation
    assert {clip["file"]: clip["lufs"] for clip in found.clips}["click.wav"] is None
    assert found.metrics["loudness"].n == 3


def test_stereo_and_any_rate_are_the_same_music(world, tmp_path):
    import soxr

    for name, sound in sounds(0).items():
        write(tmp_path / "mono" / f"{name}.wav", sound)
        stereo = np.stack([sound, sound])
        write(tmp_path / "stereo" / f"{name}.wav", soxr.resample(stereo.T, SAMPLE_RATE, 44100).T, 44100)
    found = [
        run(config(world, tmp_path / f"out {kind}", generated=tmp_path / kind, prompts=None)).evaluation
        for kind in ("mono", "stereo")
    ]
    assert found[1].metrics["fad"].value == pytest.approx(found[0].metrics["fad"].value, rel=0.05)


def test_one_clip_has_few_metrics_and_says_why(world, tmp_path):
    write(tmp_path / "one" / "a.wav", sounds(0)["piano"])
    found = run(config(world, tmp_path / "out", generated=tmp_path / "one", prompts=None)).evaluation
    absent = {each.metric: each.why for each in found.absent}
    assert "needs 2 usable clips" in absent["fad"]
    assert "diversity" in absent
    assert found.metrics["loudness"].low is None


@pytest.mark.parametrize("kind", ["missing", "empty", "only bad"])
def test_no_clip_is_one_clear_line(world, tmp_path, kind):
    folder = tmp_path / "generated"
    if kind != "missing":
        folder.mkdir()
    if kind == "only bad":
        (folder / "text.wav").write_text("hello")
    with pytest.raises(InputError, match="no such folder|no sounds or pictures|none of the 1 generated clips"):
        run(config(world, tmp_path / "out", generated=folder, prompts=None))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_another_model_is_compared_pair_by_pair(world, tmp_path):
    shutil.copytree(world / "generated", tmp_path / "before")
    (tmp_path / "before" / "planted.wav").unlink()
    found = run(config(world, tmp_path / "same", against=tmp_path / "before")).evaluation.metrics["fad_change"]
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.details.model_extra["pairs"] == len(list((tmp_path / "before").iterdir()))
    with pytest.raises(InputError, match="--against has no clip named as a generated one"):
        run(config(world, tmp_path / "other", against=world / "reference"))


def test_prompts_that_match_no_file(world, tmp_path):
    (tmp_path / "none.csv").write_text("file,prompt\nother.wav,piano\n")
    with pytest.raises(InputError, match=r"none of its 1 rows.*other\.wav"):
        run(config(world, tmp_path / "out", prompts=tmp_path / "none.csv"))
    (tmp_path / "some.jsonl").write_text(
        '{"file": "piano-0.wav", "prompt": "piano"}\n{"file": "gone.wav", "prompt": "x"}\n'
    )
    found = run(config(world, tmp_path / "out", prompts=tmp_path / "some.jsonl"))
    assert [each.what for each in found.skipped] == ["some.jsonl: gone.wav"]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX systems only")
def test_what_other_systems_write_is_judged(world, tmp_path):
    """A folder whose name is not UTF-8, a FLAC that states no length, and prompts in UTF-16."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    for name, sound in sounds(0).items():
        content = io.BytesIO()
        soundfile.write(content, sound / 4, SAMPLE_RATE, format="FLAC")
        flac = content.getvalue()
        (folder / f"{name}.flac").write_bytes(flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:])
    rows = "".join(f"{name}.flac;{name} music\r\n" for name in sounds(0))
    for encoding in ("utf-16", "utf-16-le"):
        (tmp_path / "prompts.csv").write_bytes(f"file;prompt\r\n{rows}".encode(encoding))
        given = config(world, tmp_path / encoding, generated=folder, prompts=tmp_path / "prompts.csv")
        found = run(given).evaluation
        assert {clip["file"]: clip["prompt"] for clip in found.clips} == {
            f"{name}.flac": f"{name} music" for name in sounds(0)
        }
        assert all(clip["seconds"] == pytest.approx(SECONDS) for clip in found.clips)
        assert found.left_out == ()


def test_pictures_are_inverted_and_their_prompt_is_in_their_record(world, tmp_path):
    spec = PRESETS["mini"]
    generator = np.random.default_rng(0)
    for index in range(3):
        levels = generator.integers(0, 120, (spec.n_mels, spec.width, 1)).astype(np.uint8)
        record = Record(stage="generate", settings={"prompt": f"mel spectrogram, kind {index % 2}"})
        (tmp_path / "pictures").mkdir(exist_ok=True)
        write_spectrogram(tmp_path / "pictures" / f"{index}.png", Spectrogram(levels, spec, record))
    found = run(
        config(world, tmp_path / "o", generated=tmp_path / "pictures", prompts=None, inversion="fast")
    ).evaluation
    assert [clip["prompt"] for clip in found.clips] == ["kind 0", "kind 1", "kind 0"]
    assert 0 < found.metrics["consistency"].value < 0.5
    assert all(clip["seconds"] == pytest.approx(spec.tile_seconds) for clip in found.clips)


def test_a_sound_and_its_picture_are_one_clip(world, tmp_path):
    write(tmp_path / "both" / "a.wav", sounds(0)["piano"])
    write(tmp_path / "both" / "b.wav", sounds(0)["drums"])
    (tmp_path / "both" / "a.png").write_bytes(b"not looked at")
    found = run(config(world, tmp_path / "out", generated=tmp_path / "both", prompts=None))
    assert [clip["file"] for clip in found.evaluation.clips] == ["a.wav", "b.wav"]
    assert found.exit_code == 0


def test_the_picture_beside_a_sound_tells_its_consistency(world, tmp_path):
    from sdxl_mel.files.audio import write_audio
    from sdxl_mel.sound.inversion.methods import invert

    spec = PRESETS["mini"]
    levels = np.random.default_rng(0).integers(0, 120, (spec.n_mels, 64, 1)).astype(np.uint8)
    both = tmp_path / "both"
    both.mkdir()
    write_spectrogram(both / "a.png", Spectrogram(levels, spec))
    write_audio(both / "a.wav", invert(levels, spec, method="fast"), spec.sample_rate, subtype="FLOAT")
    (tmp_path / "alone").mkdir()
    write_spectrogram(tmp_path / "alone" / "a.png", Spectrogram(levels, spec))
    found = [
        run(config(world, tmp_path / f"o {name}", generated=tmp_path / name, prompts=None, inversion="fast")).evaluation
        for name in ("both", "alone")
    ]
    assert found[0].clips[0]["consistency"] == pytest.approx(found[1].clips[0]["consistency"], abs=1e-6)


def test_thresholds_set_the_exit_code(world, tmp_path, capsys):
    words = ["--generated", world / "generated", "--reference", world / "reference", "--out", tmp_path / "out"]
    words += ["--cache", world / "cache", "--embedder", "mel", "--no-report"]
    arguments = [os.fspath(word) for word in words]
    assert run_stage("evaluate", [*arguments, "--fail-over", "fad=100"], "evaluate") == 0
    assert run_stage("evaluate", [*arguments, "--fail-under", "clap_mean=0.30"], "evaluate") == 1
    assert "clap_mean is absent" in capsys.readouterr().out
    assert run_stage("evaluate", [*arguments[:-2], "musicnn"], "evaluate") == 2


def test_absent_clap_is_absent_with_the_way_to_get_it(world, tmp_path):
    found = run(config(world, tmp_path / "out", embedder=("clap", "mel"))).evaluation
    assert "convert-clap" in next(each.why for each in found.absent if each.metric == "clap")
    assert found.metrics["fad"].embedder == "mel"


def test_a_reference_of_one_sound_repeated_has_no_bandwidth(world, tmp_path):
    for index in range(6):
        write(tmp_path / "same" / f"{index}.wav", sounds(0)["piano"])
    found = run(config(world, tmp_path / "out", reference=tmp_path / "same")).evaluation
    assert {"kad", "outliers"} <= {each.metric for each in found.absent}
    assert found.metrics["fad"].value > 0


def test_clap_scores_prompts_and_has_no_grade_unless_calibrated(world, tmp_path):
    from tests.metrics.embedders.tiny_clap import write_tiny_clap

    clap = write_tiny_clap(tmp_path / "clap")
    few = tmp_path / "few"
    for name, sound in sounds(0).items():
        write(few / f"{name}.wav", sound)
    (few / "prompts.csv").write_text("file,prompt\ndrums,drums\nflute,flute\npiano,piano\n")
    found = run(
        config(world, tmp_path / "out", generated=few, reference=few, prompts=None, embedder=("clap",), clap=str(clap))
    )
    metrics = found.evaluation.metrics
    assert -1 <= metrics["clap_mean"].value <= 1
    assert metrics["clap_mean"].n == 3
    assert metrics["clap_mean"].grade is None
    assert "music_audioset" in metrics["clap_mean"].no_grade
    assert set(metrics["clap_mean"].by_prompt) == {"drums", "flute", "piano"}
    assert metrics["fad"].value == pytest.approx(0.0, abs=1e-9)
    assert metrics["fad"].embedder == "clap"
    assert {"clap_gap", "clap_r1", "clap_r5", "clap_mrr"} <= metrics.keys()
