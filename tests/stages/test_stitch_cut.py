"""stitch and cut as commands: exact inverses, seams within tolerance, and every bad input by its message."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdxl_mel.cli import main
from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
from sdxl_mel.sound.melspec import FORMATS
from sdxl_mel.stages import cut, stitch

SPEC = FORMATS["mini"]
FOREIGN_PICTURE = "shared/data/minimidi/26.44_spectrogram_1_to_spectrogram_3.png"
LONG_MINIMIDI = next((file for up in Path(__file__).parents if (file := up / FOREIGN_PICTURE).exists()), Path("absent"))


def noise(frames: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SPEC.n_mels, frames, channels), np.uint8)


def write(path: Path, levels: np.ndarray, preset: str = "mini") -> Path:
    write_spectrogram(path, Spectrogram(levels, FORMATS[preset]))
    return path


@pytest.mark.parametrize("overlap", ["5%", "25%", "50%", "100"])
@pytest.mark.parametrize("asked", ["same", "auto"])
def test_stitch_undoes_cut(tmp_path: Path, overlap: str, asked: str) -> None:
    long = write(tmp_path / "long.png", noise(900, channels=3))
    report = cut.run(cut.Config(picture=long, out=tmp_path / "tiles", overlap=overlap))
    again = tmp_path / "again.png"
    stitched = stitch.run(
        stitch.Config(tiles=(tmp_path / "tiles",), out=again, overlap=overlap if asked == "same" else "auto")
    )
    np.testing.assert_array_equal(read_spectrogram(again).levels, read_spectrogram(long).levels)
    assert len(stitched.seams) == len(report.widths) - 1
    assert all(seam.overlap == report.overlap for seam in stitched.seams)


def test_auto_finds_the_overlap_of_tiles_that_say_nothing(tmp_path: Path) -> None:
    whole = noise(450)
    first, second = write(tmp_path / "a.png", whole[:, :256]), write(tmp_path / "b.png", whole[:, 194:])
    report = stitch.run(stitch.Config(tiles=(first, second), out=tmp_path / "long.png"))
    assert report.seams[0].overlap == 62
    np.testing.assert_array_equal(read_spectrogram(tmp_path / "long.png").levels, whole)


@pytest.mark.skipif(not LONG_MINIMIDI.exists(), reason="the pictures of the other toolkit are not here")
def test_a_foreign_picture_is_cut_and_stitched_without_loss(tmp_path: Path) -> None:
    cut.run(cut.Config(picture=LONG_MINIMIDI, out=tmp_path / "tiles", overlap="192", format="minimidi"))
    # The tiles now carry their spec; stripped of it they are the foreign tiles again.
    stripped = tmp_path / "stripped"
    stripped.mkdir()
    for tile in (tmp_path / "tiles").glob("*.png"):
        Image.open(tile).convert("RGB").save(stripped / tile.name)
    stitch.run(stitch.Config(tiles=(stripped,), out=tmp_path / "long.png", overlap="192", format="minimidi"))
    original = np.asarray(Image.open(LONG_MINIMIDI).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "long.png").convert("RGB")), original)


def test_the_same_command_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    tiles = tuple(write(tmp_path / f"{seed}.png", noise(256, seed)) for seed in range(3))
    for name in ("one", "two"):
        stitch.run(stitch.Config(tiles=tiles, out=tmp_path / name / "long.png", plot=tmp_path / name / "plot.svg"))
    for file in ("long.png", "plot.svg"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_crossfade_keeps_the_sides_of_the_overlap(tmp_path: Path) -> None:
    one, two = noise(256, 1), noise(256, 2)
    tiles = (write(tmp_path / "1.png", one), write(tmp_path / "2.png", two))
    stitch.run(stitch.Config(tiles=tiles, out=tmp_path / "long.png", overlap="64", crossfade="16"))
    levels = read_spectrogram(tmp_path / "long.png").levels
    np.testing.assert_array_equal(levels[:, :216], one[:, :216])
    np.testing.assert_array_equal(levels[:, 232:], two[:, 40:])


def test_folder_order_is_natural_and_earlier_output_is_no_tile(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write(tmp_path / f"{number}.png", np.full((SPEC.n_mels, 100, 1), number, np.uint8))
    for _ in range(2):
        stitch.run(stitch.Config(tiles=(tmp_path,), out=tmp_path / "long.png", overlap="0"))
    levels = read_spectrogram(tmp_path / "long.png").levels
    assert [int(levels[0, frame, 0]) for frame in (0, 100, 200)] == [1, 2, 10]
    assert levels.shape[1] == 300


def test_an_earlier_long_picture_beside_its_tiles_is_no_tile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        write(tmp_path / f"{number}.png", noise(100, number))
    for out in ("a", "b", "c"):
        stitch.run(stitch.Config(tiles=(tmp_path,), out=tmp_path / f"{out}.png", overlap="0"))
    assert read_spectrogram(tmp_path / "c.png").levels.shape[1] == 200
    assert "left out, stitched of other tiles there: a.png, b.png" in capsys.readouterr().err
    both = tmp_path / "longer.png"
    stitch.run(stitch.Config(tiles=(tmp_path / "a.png", tmp_path / "b.png"), out=both, overlap="0"))
    assert read_spectrogram(both).levels.shape[1] == 400


def test_loop_shortens_by_the_overlap_and_reports_its_junction(tmp_path: Path) -> None:
    tiles = (write(tmp_path / "1.png", noise(256, 1)), write(tmp_path / "2.png", noise(256, 2)))
    report = stitch.run(stitch.Config(tiles=tiles, out=tmp_path / "long.png", overlap="64", loop=True))
    assert read_spectrogram(tmp_path / "long.png").levels.shape[1] == 2 * (256 - 64)
    assert report.junction is not None
    assert "loop junction" in report.summary()


def test_tiles_of_different_specs_are_refused_with_the_fields(tmp_path: Path) -> None:
    tiles = (
        write(tmp_path / "mini.png", noise(256)),
        write(tmp_path / "web.png", np.zeros((256, 512, 1), np.uint8), "web"),
    )
    with pytest.raises(MismatchError, match=r"sample_rate 16000 against 22050.*n_mels 128 against 256"):
        stitch.run(stitch.Config(tiles=tiles, out=tmp_path / "long.png"))


def test_tiles_of_different_channel_layouts_are_refused(tmp_path: Path) -> None:
    tiles = (write(tmp_path / "1.png", noise(256)), write(tmp_path / "3.png", noise(256, channels=3)))
    with pytest.raises(MismatchError, match="channel layouts: 1 channels against 3"):
        stitch.run(stitch.Config(tiles=tiles, out=tmp_path / "long.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png"], "1 tile to stitch"),
        (["a.png", "b.png", "--overlap", "300"], "join 1: an overlap of 300 frames does not fit tiles of 256 frames"),
        (["a.png", "b.png", "--overlap", "100%"], "does not fit"),
        (["a.png", "b.png", "--overlap", "some"], "--overlap: found 'some'"),
        (["a.png", "missing.png"], "no such file; expected a picture"),
        (["empty"], "no PNG pictures"),
        (["a.png", "plain.png"], "state it with --format"),
        (["a.png", "b.png", "--plot", "x.gif"], ".png or .svg"),
        (["a.png", "b.png", "--overlp", "3"], "did you mean '--overlap'"),
        ([], "required: TILE"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("a.png"), noise(256, 1))
    write(Path("b.png"), noise(256, 2))
    Image.fromarray(noise(256)[..., 0]).save("plain.png")
    Path("empty").mkdir()
    assert main(["stitch", *arguments, "--out", "long.png"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(("overlap", "message"), [("256", "does not fit"), ("-1", "--overlap"), ("x", "--overlap")])
def test_cut_refuses_an_overlap_that_does_not_fit(tmp_path: Path, overlap: str, message: str) -> None:
    long = write(tmp_path / "long.png", noise(600))
    with pytest.raises(InputError, match=message):
        cut.run(cut.Config(picture=long, out=tmp_path / "tiles", overlap=overlap))


def test_cut_refuses_a_folder_with_other_pictures(tmp_path: Path) -> None:
    long = write(tmp_path / "long.png", noise(600))
    cut.run(cut.Config(picture=long, out=tmp_path / "tiles", overlap="10%"))
    cut.run(cut.Config(picture=long, out=tmp_path / "tiles", overlap="10%"))
    short = write(tmp_path / "short.png", noise(300))
    with pytest.raises(InputError, match=r"already holds 0003\.png"):
        cut.run(cut.Config(picture=short, out=tmp_path / "tiles", overlap="10%"))


def test_cut_says_when_the_last_tile_is_narrower(tmp_path: Path) -> None:
    long = write(tmp_path / "long.png", noise(600))
    report = cut.run(cut.Config(picture=long, out=tmp_path / "tiles", overlap="0"))
    assert report.widths == (256, 256, 88)
    assert "the last has only 88" in report.summary()
