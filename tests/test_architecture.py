"""The rules that hold the package together, executed: who may import whom, and what no module does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sdxl_mel"
LAYERS = (
    {"errors", "names"},
    {"config", "record", "seeding", "progress"},
    {"arguments", "sound", "diffusion"},
    {"completion"},
    {"files", "metrics", "captions", "corpus", "report"},
    {"stages"},
    {"cli"},
)
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "assets" not in path.parts)
DRAWERS = {"utils", "util", "helpers", "common", "misc"}


def _level(part: str) -> int:
    return next(level for level, parts in enumerate(LAYERS) if part in parts)


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _own_imports(path: Path) -> Iterator[str]:
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "sdxl_mel" and len(parts) > 1:
            yield name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path: Path) -> None:
    if path.parent == PACKAGE and path.stem in ("__init__", "__main__"):
        pytest.skip("the package's own doors")
    for name in _own_imports(path):
        assert _level(name.split(".")[1]) <= _level(_part(path)), f"{path.name} imports {name}"


def test_no_stage_imports_another_stage() -> None:
    for path in (PACKAGE / "stages").rglob("*.py"):
        own = path.relative_to(PACKAGE / "stages").parts[0].removesuffix(".py")
        for name in _own_imports(path):
            parts = name.split(".")
            if parts[1] == "stages" and len(parts) > 2:
                assert parts[2] == own, f"{path.relative_to(PACKAGE)} imports {name}"


def test_there_are_no_drawers() -> None:
    assert not [path for path in MODULES if path.stem in DRAWERS]


def test_nothing_is_pickled() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "pickle":
                assert [alias.name for alias in node.names] == ["UnpicklingError"], path
            elif isinstance(node, ast.Import):
                assert "pickle" not in {alias.name for alias in node.names}, path


def test_randomness_has_one_source() -> None:
    forbidden = ("np.random.seed", "np.random.default_rng", "torch.manual_seed", "random.seed")
    for path in MODULES:
        if path.name != "seeding.py":
            text = path.read_text(encoding="utf-8")
            assert not [call for call in forbidden if f"{call}(" in text], path


def test_every_export_exists() -> None:
    from importlib import import_module

    from sdxl_mel.commands import COMMANDS

    for name, stage in COMMANDS.items():
        module = import_module(stage.module)
        for needed in ("Config", "Report", "run", "EXAMPLES"):
            assert hasattr(module, needed), f"{name}: {stage.module} has no {needed}"
