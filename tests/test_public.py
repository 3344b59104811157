"""The public names: few, each there and explained, quick to import, and as the pages and the type checker see them."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import sdxl_mel

ROOT = Path(__file__).parents[1]


def test_the_public_names_are_few_and_sorted() -> None:
    assert len(sdxl_mel.__all__) <= 28
    assert sdxl_mel.__all__ == sorted(set(sdxl_mel.__all__))


@pytest.mark.parametrize("name", sdxl_mel.__all__)
def test_a_public_name_is_there_explained_and_on_the_page(name: str) -> None:
    thing = getattr(sdxl_mel, name)
    assert inspect.isclass(thing) or inspect.isfunction(thing)
    doc = inspect.getdoc(thing)
    assert doc
    assert doc.split("\n")[0].endswith((".", ":"))
    assert f"`{name}`" in (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_type_checker_sees_the_same_names() -> None:
    tree = ast.parse((ROOT / "sdxl_mel" / "__init__.py").read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.asname or alias.name for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == set(sdxl_mel.__all__)
    assert (ROOT / "sdxl_mel" / "py.typed").is_file()


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'encoder'"):
        getattr(sdxl_mel, "encoder")  # noqa: B009 - the type checker would refuse the plain spelling
    assert set(sdxl_mel.__all__) <= set(dir(sdxl_mel))


def test_importing_the_package_imports_no_library() -> None:
    script = (
        "import sys, sdxl_mel\n"
        "assert not {'torch', 'numpy', 'pydantic', 'rich'} & set(sys.modules)\n"
        "sdxl_mel.MelSpec\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_examples_use_public_names_alone() -> None:
    for path in sorted((ROOT / "examples").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sdxl_mel"):
                assert node.module == "sdxl_mel", f"{path.name} imports from {node.module}"
                assert {alias.name for alias in node.names} <= set(sdxl_mel.__all__), path.name
