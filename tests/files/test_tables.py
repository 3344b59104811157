"""Tables and text in every spelling that programs write; what a line is; what cannot be read, by its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.config import Skipped
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.header import parse_json
from sdxl_mel.files.tables import Row, open_table, read_text, text_lines

LINE_ENDS_OF_UNICODE = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def rows_of(path: Path, content: str | bytes, skipped: list[Skipped] | None = None) -> list[dict]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [dict(row.cells) for row in open_table(path).rows([] if skipped is None else skipped)]


EXPECTED = [{"file": "a.wav", "text": "slow, soft"}, {"file": "b.wav", "text": "café"}]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_delimiters_and_encodings_are_found_out(tmp_path: Path, mark: str, encoding: str) -> None:
    text = f'file{mark}text\r\na.wav{mark}"slow, soft"\r\nb.wav{mark}café\r\n'
    assert rows_of(tmp_path / "t.csv", text.encode(encoding)) == EXPECTED


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ends_of_lines_and_the_separator_line_of_spreadsheets(tmp_path: Path, end: str) -> None:
    text = end.join(["sep=;", "file;text", "a.wav;slow, soft", "b.wav;café", ""])
    assert rows_of(tmp_path / "t.csv", text) == EXPECTED


def test_a_delimiter_inside_quoted_names_does_not_count(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "t.csv", '"file";"a, b, c"\nx;y\n') == [{"file": "x", "a, b, c": "y"}]
    assert rows_of(tmp_path / "one.csv", "prompt\nslow piano\n") == [{"prompt": "slow piano"}]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('a.wav,"slow\nb.wav,fast\nc.wav,loud\n', 2),
        ('a.wav,slow\nb.wav,"fast\nc.wav,"loud"\n', 3),
        ('a.wav,slow\nb.wav,fast\nc.wav,"loud', 4),
        ('a.wav,"two\nlines"\nb.wav,"open\n', 4),
        ('a.wav,"slow\n\n\n" b.wav,fast\n', 2),
    ],
)
def test_an_open_quote_is_named_with_its_line(tmp_path: Path, rows: str, line: int) -> None:
    with pytest.raises(FormatError, match=rf"t\.csv, line {line}: a quote that is opened here is not closed"):
        rows_of(tmp_path / "t.csv", f"file,text\n{rows}")


@pytest.mark.parametrize("header", ['"file,text\na,b\n', 'file,"text\n', f"{'x' * 140_000},text\n"])
def test_a_header_that_cannot_be_read(tmp_path: Path, header: str) -> None:
    with pytest.raises(FormatError, match="line 1: a quote that is not closed, or a cell too long"):
        rows_of(tmp_path / "t.csv", header)


def test_bad_rows_cost_themselves_only(tmp_path: Path) -> None:
    skipped: list[Skipped] = []
    text = b'file,text\na,"quoted" word\nb,"back\\"slash"\nc,d,e\nf,g,,\nh\ni,caf\xe9\nj,"a ""b"""\n'
    assert rows_of(tmp_path / "t.csv", text, skipped) == [
        {"file": "f", "text": "g"},
        {"file": "h"},
        {"file": "j", "text": 'a "b"'},
    ]
    assert [each.what for each in skipped] == [f"t.csv, line {line}" for line in (2, 3, 4, 7)]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="two columns are named 'text'"):
        rows_of(tmp_path / "t.csv", "file,text,text\n")


def test_missing_is_what_the_source_says_is_missing(tmp_path: Path) -> None:
    lines = '{"a": NaN, "b": null, "c": "nan", "d": "", "e": 0}\n'
    assert rows_of(tmp_path / "t.jsonl", lines) == [{"c": "nan", "d": "", "e": 0}]
    assert Row("line 1", {}).text("a") == Row("line 1", {}).text(None) == ""


@given(st.text(alphabet="ab ," + LINE_ENDS_OF_UNICODE, min_size=1))
def test_only_a_line_feed_ends_a_line_of_json(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("json") / "t.jsonl"
    quoted = "".join(f"\\u{ord(char):04x}" if char < " " else char for char in text)
    assert rows_of(path, f'{{"a": "{quoted}"}}\n{{"a": "x"}}\r\n\n') == [{"a": text}, {"a": "x"}]


def test_lines_of_a_text(tmp_path: Path) -> None:
    assert list(text_lines("one\u2028two\r\n\r\n three\x85 \rfour")) == [
        (1, "one\u2028two"),
        (3, "three"),
        (4, "four"),
    ]
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le"):
        (tmp_path / "t.txt").write_bytes("café\nslow".encode(encoding))
        assert [line for _, line in text_lines(read_text(tmp_path / "t.txt"))] == ["café", "slow"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a\nb\ncaf\xe9\n", "line 3: not UTF-8"), (b"\xff\xfea", "not UTF-8 text, nor whole UTF-16")],
)
def test_text_in_another_encoding(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_text(tmp_path / "t.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a": "\\ud83d"}', "{oops", '{"a": ' * 5000, '"\udce9"', "9" * 5000, '{"a": 1e999}x']
)
def test_json_that_is_none_is_a_value_error(content: str) -> None:
    with pytest.raises(ValueError, match=".+"):
        parse_json(content)


def test_lists_inside_an_object(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "t.json", '{"format": 1, "results": [{"a": 1}, {"a": 2}]}') == [{"a": 1}, {"a": 2}]
    assert rows_of(tmp_path / "u.json", '{"path": "x", "captions": ["a", "b"]}') == [
        {"path": "x", "captions": ["a", "b"]}
    ]
    with pytest.raises(FormatError, match="not JSON"):
        rows_of(tmp_path / "v.json", "{")
