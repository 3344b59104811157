"""Files of prompts: what each kind holds, and how a bad line is named."""

from pathlib import Path

import pytest

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.prompts import PromptLine, read_prompts


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_the_three_kinds_say_the_same(tmp_path: Path) -> None:
    text = write(tmp_path / "a.txt", "# comment\nslow piano, sad\n\n  drums \n")
    table = write(tmp_path / "a.csv", '\ufeffprompt,seed\n"slow piano, sad",\ndrums,\n')
    lines = write(tmp_path / "a.jsonl", '{"caption": "slow piano, sad"}\n\n{"text": "drums"}\n')
    expected = [PromptLine(prompt="slow piano, sad"), PromptLine(prompt="drums")]
    assert read_prompts(text) == read_prompts(table) == read_prompts(lines) == expected


def test_a_table_may_say_more(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "prompt,negative_prompt,seed,num\npiano,drums,7,3\n")
    assert read_prompts(table) == [PromptLine(prompt="piano", negative_prompt="drums", seed=7, num=3)]


def test_line_breaks_inside_prompts_do_not_glue_words(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", 'prompt;seed\n"slow\npiano";7\n"drums\u2028and bass";\n')
    assert [line.prompt for line in read_prompts(table)] == ["slow\npiano", "drums\u2028and bass"]
    lines = write(
        tmp_path / "a.jsonl", '{"prompt": "slow\u2028piano\x85", "seed": NaN}\n{"prompt": "a\\u000bb", "num": null}\n'
    )
    assert [line.prompt for line in read_prompts(lines)] == ["slow\u2028piano", "a\x0bb"]
    text = write(tmp_path / "a.txt", "slow\u2028piano\r\n# no\rdrums")
    assert [line.prompt for line in read_prompts(text)] == ["slow\u2028piano", "drums"]


@pytest.mark.parametrize("name", ["a.tsv", "a.json", "a.TXT", "a.csv"])
def test_other_spellings_of_the_same_file(tmp_path: Path, name: str) -> None:
    contents = {"a.tsv": "prompt\tseed\ncafé\t7", "a.json": '[{"prompt": "café", "seed": 7}]', "a.TXT": "café"}
    (tmp_path / name).write_bytes(contents.get(name, "prompt;seed\r\ncafé;7\r\n").encode("utf-16"))
    seed = None if name == "a.TXT" else 7
    assert read_prompts(tmp_path / name) == [PromptLine(prompt="café", seed=seed)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "\n\n", "holds no prompt"),
        ("a.csv", "prompt\n", "holds no prompt"),
        ("a.csv", "prompt,sed\npiano,3\n", r"line 2: unknown column 'sed' \(did you mean 'seed'\?\)"),
        ("a.csv", "prompt\nslow, sad piano\n", "line 2: 2 cells under 1 columns"),
        ("a.csv", "seed\n3\n", "line 2: prompt: field required"),
        ("a.csv", "prompt,num\npiano,0\n", "line 2: num: input should be greater"),
        ("a.jsonl", '{"prompt": "a"}\n{bad\n', "line 2: not JSON"),
        ("a.jsonl", '["a"]\n', "line 1: not a JSON object"),
        ("a.jsonl", '{"prompt": "", "seed": 3}\n', "line 1: prompt:"),
        ("a.jsonl", '{"prompt": ""}\n', "holds no prompt"),
        ("a.csv", 'prompt,seed\n"slow,1\nfast,2\nloud,3\n', "line 2: a quote that is opened here is not closed"),
        ("a.csv", 'prompt,seed\na,1\n"b" c,2\n', "line 3: not a row"),
        ("a.csv", "prompt,seed\na,1\nb,x\n", "line 3: seed: "),
        ("a.docx", "piano", "prompts of kind .docx"),
    ],
)
def test_bad_files_are_refused_by_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises((InputError, FormatError), match=message):
        read_prompts(write(tmp_path / name, content))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_prompts(tmp_path / "absent.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not UTF-8"):
        read_prompts(tmp_path / "binary.txt")
