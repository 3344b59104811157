"""Each example runs as written, with a tiny amount of work."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARGUMENTS = {
    "codec": [str(ROOT / "tests/fixtures/band.flac"), "--preset", "mini", "--seconds", "2"],
    "train_and_generate": ["--tracks", "6", "--steps", "2", "--sampling-steps", "2"],
    "long_piece": ["--seconds", "7", "--tiles", "3", "--sampling-steps", "2"],
}
MADE = {
    "codec": ["picture.png", "sound.wav"],
    "train_and_generate": ["data/report.html", "run/lora.safetensors", "songs/0001.wav"],
    "long_piece": ["joint.wav", "stitched.wav"],
}
SAID = {
    "codec": "8 bits -> best",
    "train_and_generate": "adapted layers, anchor 'mel spectrogram'",
    "long_piece": "stitched seams:",
}


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_example(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [path.name, *ARGUMENTS[path.stem], "--out", str(tmp_path)])
    runpy.run_path(str(path), run_name="__main__")
    assert SAID[path.stem] in capsys.readouterr().out
    assert all((tmp_path / made).is_file() for made in MADE[path.stem])
