"""Flags made from settings: every kind of field, and the near miss of every wrong one."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from sdxl_mel.arguments import Show, build_parser, format_arguments, parse_arguments
from sdxl_mel.config import Settings, StageConfig
from sdxl_mel.errors import InputError


class Group(Settings):
    """A group."""

    hop_length: int = 512
    """samples between frames"""


class Sample(StageConfig):
    """Do something to files."""

    files: Annotated[list[Path], Show.POSITIONAL] = Field(min_length=1)
    """what to work on"""
    out: Path
    """where to"""
    kind: Literal["a", "b"] = "a"
    """which kind"""
    seeds: tuple[int, ...] = (0,)
    """some seeds"""
    weights: dict[str, float] = {}
    """weights by name"""
    fast: bool = True
    """100 % faster"""
    limit: float | None = 3.0
    """at most"""
    json_: bool = False
    """as JSON"""
    deep: Annotated[int, Show.ADVANCED] = 1
    """rarely needed"""
    secret: Annotated[int, Show.HIDDEN] = 1
    """never shown"""
    group: Group = Group()


def parse(*words: str) -> Sample:
    return parse_arguments(Sample, ["x.png", "--out", "y", *words], "prog")


def test_every_kind_of_field() -> None:
    found = parse_arguments(
        Sample,
        ["a", "b", "--out", "c", "--kind", "b", "--seeds", "1", "2", "--seeds", "3", "--weights", "x=0.5", "y=2",
         "--no-fast", "--limit", "none", "--json", "--group.hop-length", "256"],
        "prog",
    )  # fmt: skip
    assert found == Sample(
        files=[Path("a"), Path("b")], out=Path("c"), kind="b", seeds=(1, 2, 3), weights={"x": 0.5, "y": 2.0},
        fast=False, limit=None, json_=True, group=Group(hop_length=256),
    )  # fmt: skip


def test_defaults_are_the_models() -> None:
    assert parse() == Sample(files=[Path("x.png")], out=Path("y"))


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('kind = "b"\nseeds = [4]\n[group]\nhop_length = 128\n')
    assert parse("--config", str(file)).group.hop_length == 128
    found = parse("--config", str(file), "--group.hop-length", "64")
    assert (found.group.hop_length, found.kind, found.seeds) == (64, "b", (4,))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--knd", "a"], "did you mean '--kind'"),
        (["--kind", "c"], "kind: found 'c'"),
        (["--seeds", "x"], "seeds"),
        (["--weights", "x"], "not KEY=VALUE"),
        (["--limit"], "expected one argument"),
        (["--limit", "1", "--limit", "2"], "--limit is given twice"),
        (["--kind", "a", "--kind=b"], "--kind is given twice"),
        (["--fast", "--no-fast"], "--no-fast is given twice"),
        (["--config", "a.toml", "--config", "b.toml"], "--config is given twice"),
        (["--group.hop-length", "1", "--group.hop-length", "2"], "--group.hop-length is given twice"),
        (["--fas"], "unknown argument '--fas'"),
        (["--config", "missing.toml"], "cannot read this config"),
    ],
)
def test_wrong_flags_are_one_line(words: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(*words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_needed_is_asked_for() -> None:
    with pytest.raises(InputError, match="out is needed"):
        parse_arguments(Sample, ["a"], "prog")
    with pytest.raises(InputError, match="FILE"):
        parse_arguments(Sample, ["--out", "a"], "prog")


def test_help_shows_what_is_common_and_help_all_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    short = build_parser(Sample, "prog", "  prog a --out b").format_help()
    assert "100 % faster" in short
    assert "[a]" in short
    assert "prog a --out b" in short
    assert "--[no-]json" in short
    assert "--deep" not in short.split("options:")[1]
    assert "show 2 more settings" in short or "show 3 more settings" in short
    everything = build_parser(Sample, "prog", everything=True).format_help()
    assert "rarely needed" in everything
    assert "samples between frames" in everything
    assert "never shown" not in everything
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as caught:
            parse_arguments(Sample, [flag], "prog")
        assert caught.value.code == 0
    assert "rarely needed" in capsys.readouterr().out


@given(
    files=st.lists(st.text("abc/.", min_size=1).map(Path), min_size=1),
    kind=st.sampled_from(["a", "b"]),
    seeds=st.lists(st.integers(-9, 9), min_size=1).map(tuple),
    weights=st.dictionaries(st.text("xy-", min_size=1), st.floats(-2, 2)),
    fast=st.booleans(),
    limit=st.none() | st.floats(-5, 5),
    hop=st.integers(1, 512),
)
def test_formatted_arguments_are_parsed_back(
    files: list[Path], kind: str, seeds: tuple[int, ...], weights: dict[str, float], fast: bool, limit: float | None,
    hop: int,
) -> None:  # fmt: skip
    config = Sample.model_validate(
        {"files": files, "out": Path("y"), "kind": kind, "seeds": seeds, "weights": weights, "fast": fast,
         "limit": limit, "group": {"hop_length": hop}}
    )  # fmt: skip
    assert parse_arguments(Sample, format_arguments(config), "prog") == config


def test_only_what_differs_from_the_defaults_is_formatted() -> None:
    assert format_arguments(Sample(files=[Path("a b")], out=Path("-y"), fast=False)) == ["a b", "--out=-y", "--no-fast"]
