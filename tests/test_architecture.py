"""The rules that hold the package together, executed: who may import whom, and what no module does."""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sdxl_mel.commands import COMMANDS

PACKAGE = Path(__file__).parents[1] / "sdxl_mel"
LEVELS = (
    {"errors", "names", "arrays", "options", "assets", "web"},
    {"config", "record", "seeding", "progress", "execution", "devices"},
    {"arguments", "corpus", "sound", "diffusion"},
    {"files", "durations"},
    {"captions", "models", "metrics", "report"},
    {"codec", "tiles", "dataset", "evaluation", "synthesis"},
    {"training", "export"},
    {"stages"},
    {"commands"},
    {"demo", "completion", "studio"},
    {"cli"},
)
"""A part of the package imports itself and parts of lower levels, none of its own level and none above."""
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
ENTRIES = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
DRAWERS = {"utils", "util", "helpers", "common", "misc"}
MOST_INNER_IMPORTS = 40
LARGEST_SHARE = 0.2


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@cache
def _own_imports(path: Path) -> list[str]:
    """Return what a module imports of the package, from the part on: `sound.melspec.MelSpec`."""
    names = _imports(_tree(path))
    return [name.removeprefix("sdxl_mel.") for name in names if name.startswith("sdxl_mel.")]


@cache
def _inner_imports(path: Path) -> set[ast.AST]:
    return {
        node
        for function in ast.walk(_tree(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }


@pytest.mark.parametrize("path", [path for path in MODULES if path not in ENTRIES], ids=_name)
def test_imports_point_down(path: Path) -> None:
    level = {part: number for number, parts in enumerate(LEVELS) for part in parts}
    own = _part(path)
    for name in _own_imports(path):
        part = name.split(".")[0]
        if part not in (own, "__version__"):
            assert level[part] < level[own], f"{_name(path)} imports {name}"


def test_every_part_has_a_level() -> None:
    parts = {_part(path) for path in MODULES if path not in ENTRIES}
    assert sorted(part for level in LEVELS for part in level) == sorted(parts)


def test_no_module_imports_in_a_circle() -> None:
    names = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in MODULES if path not in ENTRIES}
    graph = {
        name: {other for found in _own_imports(path) for other in (found, found.rpartition(".")[0]) if other in names}
        for name, path in names.items()
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for other in graph[name] - {name}:
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_stage_imports_another_stage() -> None:
    for path in (PACKAGE / "stages").glob("*.py"):
        assert not [name for name in _own_imports(path) if name.startswith("stages.")], _name(path)


def test_modules_are_named_in_code_where_names_are_tables() -> None:
    """The tables of commands, tasks and public names load our modules by name, and the optimizers those of others."""
    users = {
        _name(path)
        for path in MODULES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
    }
    assert users == {"__init__.py", "commands.py", "training/optimizers.py", "training/tasks.py"}


def test_few_imports_stand_inside_functions() -> None:
    counts = {_name(path): len(_inner_imports(path)) for path in MODULES}
    assert sum(counts.values()) <= MOST_INNER_IMPORTS, Counter(counts).most_common(10)
    stages = {name: count for name, count in counts.items() if name.startswith("stages/") and count > 1}
    assert not stages, "a stage imports its engine where it runs, and nothing else"


def test_no_folder_is_most_of_the_package() -> None:
    lines: Counter[str] = Counter()
    for path in MODULES:
        lines[_part(path)] += len(path.read_text(encoding="utf-8").splitlines())
    part, most = lines.most_common(1)[0]
    assert most <= LARGEST_SHARE * lines.total(), part


def test_an_array_has_one_name() -> None:
    aliases: Counter[str] = Counter()
    for path in MODULES:
        for node in _tree(path).body:
            target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
            value = getattr(node, "value", None)
            if isinstance(target, ast.Name) and value is not None and ast.unparse(value).startswith("NDArray["):
                aliases[target.id] += 1
    assert not [name for name, count in aliases.items() if count > 1]


def test_there_are_no_drawers() -> None:
    assert not [path for path in MODULES if path.stem in DRAWERS]


def test_nothing_is_pickled() -> None:
    for path in MODULES:
        pickled = {name for name in _imports(_tree(path)) if name.split(".")[0] == "pickle"}
        assert pickled <= {"pickle.UnpicklingError"}, path


def test_what_people_bring_is_parsed_in_one_place() -> None:
    """`files.header.parse_json` says in one way what is no JSON, also of what is nested too deep."""
    own = {"corpus", "demo", "studio"}
    for path in MODULES:
        if _part(path) not in own and _name(path) != "files/header.py":
            assert "json.loads(" not in path.read_text(encoding="utf-8"), path


def test_randomness_has_one_source() -> None:
    forbidden = ("np.random.seed", "np.random.default_rng", "torch.manual_seed", "random.seed")
    for path in MODULES:
        if path.name != "seeding.py":
            text = path.read_text(encoding="utf-8")
            assert not [call for call in forbidden if f"{call}(" in text], path


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_same_shape(name: str) -> None:
    module = COMMANDS[name].load()
    assert callable(module.run)
    assert hasattr(module, "Report")
    for action in COMMANDS[name].actions().values():
        assert action.settings.__doc__
        assert action.examples.strip()
