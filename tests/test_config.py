"""Settings from TOML and flags: closed to what is unknown, and clear about what is wrong."""

from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from sdxl_mel.config import Before, Settings, Skipped, StageConfig, StageReport, merged, read_toml, validated
from sdxl_mel.errors import FormatError, InputError


class Inner(Settings):
    """A group."""

    rate: float = 1.0
    """how fast"""


class Sample(StageConfig):
    """Settings to test with."""

    name: str
    steps: int = Field(10, ge=1)
    inner: Inner = Inner()


def test_toml_fills_settings_and_overrides_win(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('name = "x"\nsteps = 5\n[inner]\nrate = 2.5\n')
    tables = read_toml(file)
    assert validated(Sample, tables, "a.toml") == Sample(name="x", steps=5, inner=Inner(rate=2.5))
    assert validated(Sample, merged(tables, {"inner": {"rate": 3}}), "a.toml").inner.rate == 3
    assert validated(Sample, merged(tables, {"steps": 7}), "a.toml").inner.rate == 2.5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "x", "step": 3}, "unknown setting 'step' (did you mean 'steps'?)"),
        ({"name": "x", "inner": {"rat": 3}}, "unknown setting 'inner.rat' (did you mean 'inner.rate'?)"),
        ({}, "name is needed"),
        ({"name": "x", "steps": 0}, "steps: found 0; input should be greater than or equal to 1"),
        ({"name": "x", "inner": {"rate": float("nan")}}, "inner.rate"),
        ({"name": "x", "steps": "many"}, "steps: found 'many'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(values: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as caught:
        validated(Sample, values, "a.toml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("a.toml: ")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_toml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read this config"):
        read_toml(tmp_path / "missing.toml")
    (tmp_path / "bad.toml").write_text("a = = 3")
    with pytest.raises(FormatError, match="not a TOML file"):
        read_toml(tmp_path / "bad.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not a TOML file"):
        read_toml(tmp_path / "binary.toml")
    for text in ("a = " + "[" * 50_000, "a = " + "{b = " * 50_000):
        (tmp_path / "deep.toml").write_text(text)
        with pytest.raises(FormatError, match="nested too deep"):
            read_toml(tmp_path / "deep.toml")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-8"])
def test_every_mark_of_an_encoding(encoding: str, tmp_path: Path) -> None:
    content = 'name = "é → ♪"\nsteps = 5\n'.encode(encoding)
    (tmp_path / "a.toml").write_bytes(b"\xfe\xff" * (encoding == "utf-16-be") + content)
    assert read_toml(tmp_path / "a.toml") == {"name": "é → ♪", "steps": 5}


@pytest.mark.parametrize(
    "path",
    [
        r"C:\Users\me",
        r"D:\music",
        r"\\server\share",
        r"C:\temp",
        r"C:\my music\new",
        r"runs\tape",
        r"runs\new",
        r"..\data",
    ],
)
def test_a_windows_path_in_double_quotes_is_explained(path: str, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    for line in (f'name = "{path}"', f'[inner]\nwhere = "{path}"', f'files = ["a", "{path}"]'):
        file.write_text(f"steps = 3\n{line}\n", encoding="utf-8")
        with pytest.raises(FormatError, match="write a Windows path in single quotes") as caught:
            read_toml(file)
        assert "\n" not in str(caught.value)
        file.write_text(line.replace('"', "'"), encoding="utf-8")
        assert path in str(read_toml(file)).replace("\\\\", "\\")
    for ending in ("", "\nsteps = 3"):
        file.write_text(f'name = "C:\\music\\"{ending}', encoding="utf-8")
        with pytest.raises(FormatError, match="write a Windows path in single quotes"):
            read_toml(file)
    file.write_text('name = "a\\tb\nsteps = = 3', encoding="utf-8")
    with pytest.raises(FormatError, match="not a TOML file"):
        read_toml(file)
    file.write_text('name = "a \\"word\\" and \\u00e9"\nfiles = "C:\\\\music"\n', encoding="utf-8")
    assert read_toml(file) == {"name": 'a "word" and é', "files": r"C:\music"}


TREES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


@given(one=MAPPINGS, other=MAPPINGS)
def test_merging_is_idempotent_and_the_later_wins(one: dict[str, object], other: dict[str, object]) -> None:
    both = merged(one, other)
    assert merged(both, other) == both
    assert merged(one, {}) == one
    assert set(both) == set(one) | set(other)
    for key, value in other.items():
        if not isinstance(value, dict):
            assert both[key] == value


def test_skipped_inputs_set_the_exit_code() -> None:
    assert StageReport().exit_code == 0
    assert StageReport(skipped=(Skipped(what="a", why="b"),)).exit_code == 3


class Shared(Settings):
    first: int = 1
    """the first"""
    last: int = 9
    """the last"""


class Own(Shared):
    between: Annotated[int, Before("last")] = 4
    """between them"""
    after: Annotated[int, Before("last")] = 5
    """after that"""
    end: int = 10
    """where pydantic has it"""


class OwnAgain(Own):
    start: Annotated[int, Before("first")] = 0
    """before all"""


class ByPydantic(BaseModel):
    """The same settings, described by pydantic."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    plain: int = 1
    """one line"""
    long: Annotated[int, Field(ge=0)] = 2
    """two lines, the second
    of which is indented"""
    bare: int = 3

    limit: float = 4.0
    "in single quotes"
    stated: int = Field(5, description="in the field")
    """not this"""


class ByOurs(Settings):
    plain: int = 1
    """one line"""
    long: Annotated[int, Field(ge=0)] = 2
    """two lines, the second
    of which is indented"""
    bare: int = 3

    limit: float = 4.0
    "in single quotes"
    stated: int = Field(5, description="in the field")
    """not this"""


def test_settings_are_described_as_pydantic_describes_them() -> None:
    class Local(ByOurs):
        """One more setting, and one that is declared anew."""

        more: int = 6
        """one more"""
        plain: int = 7

    def described(model: type[BaseModel]) -> dict[str, str | None]:
        return {name: field.description for name, field in model.model_fields.items()}

    assert described(ByOurs) == described(ByPydantic)
    assert described(Local) == described(ByPydantic) | {"more": "one more", "plain": None}
    typed: dict[str, object] = {"Settings": Settings}
    exec("class Typed(Settings):\n    size: int = 1\n    'not read: there is no file'", typed)
    assert described(typed["Typed"]) == {"size": None}  # type: ignore[arg-type]


def test_a_setting_stands_where_its_mark_says() -> None:
    assert list(Own().model_dump()) == list(Own.model_fields) == ["first", "between", "after", "last", "end"]
    assert list(OwnAgain().recorded()) == ["start", "first", "between", "after", "last", "end"]
    assert list(Own.model_json_schema()["properties"]) == list(Own.model_fields)
