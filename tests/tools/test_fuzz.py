"""A short form of tools/fuzz.py; the long one is run by hand."""

from pathlib import Path

import pytest

from sdxl_mel.commands import COMMANDS
from tools import fuzz

QUICK = {
    recipe: share
    for recipe, share in fuzz.RECIPES.items()
    if recipe.__name__ in ("encode", "invert", "inspect", "lora")
}


@pytest.mark.parametrize("seed", [11, 12])
def test_damaged_inputs_are_refused_or_named(tmp_path: Path, seed: int) -> None:
    found = list(fuzz.fuzz(tmp_path, range(15), seed, QUICK, keep=False))
    assert [fault for fault in found if fault is not None] == []
    assert found.count(None) == 15


def test_every_command_that_reads_files_has_cases() -> None:
    recipes = {recipe.__name__ for recipe in fuzz.RECIPES}
    assert {name for name in COMMANDS if name.replace("-", "_") not in recipes} <= {"demo", "studio"}


def test_faults_are_found_where_there_are_some(tmp_path: Path) -> None:
    def lost(case: fuzz.Case) -> list[str | Path]:
        """Encode one of two sounds."""
        case.inputs = [case.good(sound) for sound in case.material.sounds[:2]]
        case.made = lambda path: (case.out / f"{path.stem}.png").is_file()
        case.out.mkdir()
        (case.out / "half.png").write_bytes(b"half")
        (case.out / ".a.png.1.tmp").touch()
        return ["encode", case.inputs[0], "--preset", "mini", "--seconds", "0.4", "--out", case.out]

    said = [fault.what for fault in fuzz.fuzz(tmp_path, [0], 0, {lost: 1}, keep=False) if fault is not None]
    assert [what.split(":")[0] for what in said] == ["not whole", "not whole", "lost without a word"]
