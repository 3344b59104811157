"""edit as a command: what it writes, that it repeats itself, and how it refuses."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdxl_mel.cli import main
from sdxl_mel.config import validated
from sdxl_mel.files.audio import read_audio, read_provenance, write_audio
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages import edit
from tests.sounds import FIXTURES, tone

SPEC = PRESETS["mini"]


def run(base: Path, source: Path, out: Path, **settings: object) -> edit.Report:
    values = {"base": str(base), "preset": "mini", "steps": 2, "guidance": 1.0, "method": "fast"}
    return edit.run(validated(edit.Config, values | {"input": source, "out": out} | settings, "test"))


def test_a_file_keeps_its_rate_channels_precision_and_samples(slim_sdxl: Path, tmp_path: Path) -> None:
    loud = np.random.default_rng(0).uniform(-1, 1, (2, 3 * 44100)).astype(np.float32)
    write_audio(tmp_path / "in.wav", loud, 44100, subtype="PCM_24")
    for name in ("out", "again"):
        report = run(slim_sdxl, tmp_path / "in.wav", tmp_path / f"{name}.wav", region=("1-1.5s: banjo",), seed=3)
    assert (tmp_path / "out.wav").read_bytes() == (tmp_path / "again.wav").read_bytes()
    found = soundfile.info(tmp_path / "out.wav")
    assert (found.samplerate, found.channels, found.subtype, found.frames) == (44100, 2, "PCM_24", 3 * 44100)
    original, result = read_audio(tmp_path / "in.wav")[0], read_audio(tmp_path / "out.wav")[0]
    np.testing.assert_array_equal(result[:, :30000], original[:, :30000])
    np.testing.assert_array_equal(result[:, 80000:], original[:, 80000:])
    assert "0.90-1.54 s, strength 1, feather 0.128 s: banjo" in report.summary()
    record = read_provenance(tmp_path / "out.wav")["record"]
    assert (record["stage"], record["settings"]["seed"]) == ("edit", 3)
    assert "input" in record["inputs"]
    assert read_spectrogram(tmp_path / "out.png").levels.shape[:2] == (SPEC.n_mels, 188)
    assert soundfile.info(tmp_path / "out.wav").subtype_info
    assert (tmp_path / "out-mask.png").exists()


@pytest.mark.parametrize(
    ("settings", "seconds", "said"),
    [
        ({"extend": 1.5}, 4.5, "  2.94-4.51 s, strength 1"),
        ({"prepend": 0.01}, 3.128, "  0.00-0.13 s, strength 1"),
        ({"loop": True}, 2.56, "  2.05-2.56 and 0.00-0.51 s, strength 1"),
        ({"strength": 0.5}, 3.0, "  0.00-3.01 s, strength 0.5:"),
    ],
)
def test_the_result_is_as_long_as_asked_and_what_is_drawn_lies_in_it(
    slim_sdxl: Path, tmp_path: Path, settings: dict[str, object], seconds: float, said: str
) -> None:
    write_audio(tmp_path / "in.wav", tone(440, 3.0, 16000), 16000)
    report = run(slim_sdxl, tmp_path / "in.wav", tmp_path / "out.wav", **settings)
    assert read_audio(tmp_path / "out.wav")[0].shape[-1] == pytest.approx(seconds * 16000, abs=SPEC.hop_length)
    assert said in report.summary()


@pytest.mark.parametrize("channels", [1, 2])
def test_mono_stays_mono_and_stereo_stereo_on_a_base_of_stereo_pictures(
    slim_sdxl: Path, tmp_path: Path, channels: int
) -> None:
    loud = np.random.default_rng(0).uniform(-0.5, 0.5, (channels, 3 * 22050)).astype(np.float32)
    write_audio(tmp_path / "in.wav", loud, 22050)
    run(slim_sdxl, tmp_path / "in.wav", tmp_path / "out.wav", preset="web", region=("1-1.5s",))
    original, result = read_audio(tmp_path / "in.wav")[0], read_audio(tmp_path / "out.wav")[0]
    assert result.shape == (channels, 3 * 22050)
    np.testing.assert_array_equal(result[:, : round(0.7 * 22050)], original[:, : round(0.7 * 22050)])
    assert (result != original).any()
    run(slim_sdxl, tmp_path / "out.png", tmp_path / "again.png", preset="web", strength=0.5)
    assert read_spectrogram(tmp_path / "again.png").levels.shape[-1] == (1 if channels == 1 else 3)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "opus", "mp3"])
def test_the_extension_chooses_the_format(slim_sdxl: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    run(slim_sdxl, FIXTURES / "piano.flac", out, strength=0.5, prompt="piano")
    assert read_audio(out)[0].shape[0] == read_audio(FIXTURES / "piano.flac")[0].shape[0]


def test_a_picture_is_edited_as_a_sound_is(slim_sdxl: Path, tmp_path: Path) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (SPEC.n_mels, SPEC.width, 1), np.uint8)
    write_spectrogram(tmp_path / "in.png", Spectrogram(whole, SPEC))
    run(slim_sdxl, tmp_path / "in.png", tmp_path / "out.png", region=("1.5-2.5s",))
    drawn = read_spectrogram(tmp_path / "out.png").levels
    # 1.5 to 2.5 s are frames 93.75 to 156.25, widened to the latent columns 88 to 160, with a feather of one.
    np.testing.assert_array_equal(drawn[:, :80], whole[:, :80])
    np.testing.assert_array_equal(drawn[:, 168:], whole[:, 168:])
    assert (drawn[:, 88:160] != whole[:, 88:160]).mean() > 0.9
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.wav", "--out", "o.wav"], "no such file"),
        (["plain.txt", "--out", "o.wav"], "not a readable PNG"),
        (["in.wav", "--out", "o.xyz"], "give a sound"),
        (["in.wav", "--out", "o.ogg", "--bits", "24"], ".ogg has no PCM_24"),
        (["in.wav", "--out", "plain.txt/o.wav"], "plain.txt is no folder to write in"),
        (["in.wav", "--out", "in.wav"], "would replace the input in.wav"),
        (["in.wav", "--out", "o.wav", "--region", "3-9s"], "the sound ends at 2.00 s"),
        (["in.wav", "--out", "o.wav", "--strength", "0.1"], "leaves none"),
        (["in.wav", "--out", "o.wav", "--region", "banjo"], "write it as"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    slim_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain.txt").write_text("not a picture")
    write_audio(Path("in.wav"), tone(440, 2.0, 16000), 16000)
    code = main(["edit", *words, "--base", str(slim_sdxl), "--preset", "mini", "--steps", "2"])
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert "Traceback" not in error
    assert "steps," not in error, "it is refused before anything is drawn"
    assert not list(Path().glob("o.*"))
