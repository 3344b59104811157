"""Ogg pages: the serial number is cleared, the sound stays the same."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdxl_mel.files import ogg


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_the_serial_goes_and_the_sound_stays(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.ogg"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (96000, 2)).astype(np.float32)
    soundfile.write(path, noise, 48000, subtype=subtype)
    before, size = soundfile.read(path)[0], path.stat().st_size
    assert serials(path) != {0}
    ogg.clear_serial(path)
    # libogg drops pages with a wrong checksum, so equal samples say that every checksum is right.
    np.testing.assert_array_equal(soundfile.read(path)[0], before)
    assert serials(path) == {0}
    assert path.stat().st_size == size
    assert ogg.is_whole(path.read_bytes())


def test_a_file_that_was_cut_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.zeros((96000, 1), dtype=np.float32), 48000)
    path.write_bytes(path.read_bytes()[:-1000])
    assert not ogg.is_whole(path.read_bytes())


def serials(path: Path) -> set[int]:
    """Return the serial numbers of all pages."""
    content = path.read_bytes()
    starts = [start for start in range(len(content)) if content.startswith(b"OggS\0", start)]
    assert len(starts) > 2
    return {int.from_bytes(content[start + 14 : start + 18], "little") for start in starts}
