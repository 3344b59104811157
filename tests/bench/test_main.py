"""The command line of the benchmarks."""

import pytest

from bench.__main__ import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["codex"], "unknown benchmark 'codex'"),
        (["codec", "prepare", "--seeds", "3"], "options belong to one benchmark"),
        (["--seeds", "3"], "options belong to one benchmark"),
        (["ablations", "--rows", "hubre"], "did you mean 'huber'"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_line(capsys, words, message):
    assert main(words) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("bench: ") and message in told
