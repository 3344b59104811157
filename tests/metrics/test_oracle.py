"""The instrument oracle: it learns what it is shown, counts what is found, and refuses what it cannot judge."""

import numpy as np
import pytest

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.metrics.oracle import Oracle, load_oracle, statistics
from tools.mini_base.oracle import chorales, fit_oracle, save_oracle

NAMES = ("low", "middle", "high")


def tiles_of(playing: list[list[str]], seed: int = 0) -> np.ndarray:
    """Return tiles in which each instrument is a steady band of its own over noise."""
    generator = np.random.default_rng(seed)
    tiles = generator.integers(0, 30, (len(playing), 32, 24), dtype=np.uint8)
    for tile, names in zip(tiles, playing):
        for name in names:
            row = 3 + 10 * NAMES.index(name)
            tile[row : row + 4] = generator.integers(150, 255, (4, 24), dtype=np.uint8)
    return tiles


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    playing = [["low"], ["middle"], ["high"], ["low", "high"], ["low", "middle"], ["middle", "high"]] * 10
    return fit_oracle(tiles_of(playing), playing, [len(names) == 2 for names in playing], NAMES)


def test_it_finds_the_instruments_and_the_style_of_new_tiles(oracle: Oracle) -> None:
    playing = [["high", "low"], ["middle"], ["middle", "low"], ["high"]]
    tiles = tiles_of(playing, seed=1)
    assert oracle.found(tiles, playing) == [[True, True], [True], [True, True], [True]]
    assert chorales(oracle, tiles).tolist() == [True, False, True, False]


def test_a_wrong_wish_is_not_found_and_the_flags_keep_its_order(oracle: Oracle) -> None:
    tiles = tiles_of([["high", "low"]], seed=2)
    assert oracle.found(tiles, [["middle", "low"]]) == [[False, True]]


def test_levels_and_values_are_the_same_picture(oracle: Oracle) -> None:
    tiles = tiles_of([["low"], ["high"]], seed=3)
    assert np.allclose(oracle.logits(tiles), oracle.logits(tiles.astype(np.float32) / 255), atol=1e-3)


def test_statistics_of_a_tile_do_not_depend_on_its_company() -> None:
    tiles = tiles_of([["low"], ["high"]], seed=4)
    assert np.array_equal(statistics(tiles)[1], statistics(tiles[1:])[0])


def test_saved_and_read_again_it_is_the_same(oracle: Oracle, tmp_path) -> None:
    save_oracle(tmp_path / "oracle.safetensors", oracle)
    again = load_oracle(tmp_path / "oracle.safetensors")
    tiles = tiles_of([["low"], ["high"]], seed=5)
    assert again.labels == oracle.labels
    assert np.array_equal(again.logits(tiles), oracle.logits(tiles))


def test_fitting_twice_gives_the_same_oracle() -> None:
    playing = [["low"], ["middle"], ["high"]] * 4
    first, second = (fit_oracle(tiles_of(playing), playing, [True, False, True] * 4, NAMES) for _ in range(2))
    assert np.array_equal(first.weight, second.weight)


def test_bad_input_is_named(oracle: Oracle, tmp_path) -> None:
    tiles = tiles_of([["low"]])
    with pytest.raises(InputError, match="does not know kazoo"):
        oracle.found(tiles, [["kazoo"]])
    with pytest.raises(InputError, match="1 tiles but 2 lists"):
        oracle.found(tiles, [["low"], ["low"]])
    with pytest.raises(InputError, match="shape"):
        oracle.logits(tiles[0])
    with pytest.raises(FormatError, match="not an instrument oracle"):
        load_oracle(tmp_path / "absent.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(FormatError, match="not an instrument oracle"):
        load_oracle(tmp_path / "junk.safetensors")
