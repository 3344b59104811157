"""The log: what is in it is on the disk, and a kill at any byte loses nothing that was told."""

import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.errors import ResourceError
from sdxl_mel.studio.job import Job, applied
from sdxl_mel.studio.log import Log

CREATED = {"stage": "generate", "name": "a", "settings": {"prompt": "x"}, "out": "o", "command": "c", "created": "t"}
RESULT = {
    "name": "0001", "picture": "0001.png", "sound": None, "prompt": "x", "negative_prompt": "", "seed": 0,
    "candidate_seed": 0, "seconds": 4.0, "loop": False,
}  # fmt: skip


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    log = Log(tmp_path / "a" / "jobs.jsonl")
    entries = [{"job": "000001", "set": {"name": "é\n"}}, {"job": "000001", "set": {"state": "running"}}]
    for entry in entries:
        log.append(entry)
    log.close()
    assert list(Log(tmp_path / "a" / "jobs.jsonl").entries()) == entries


@given(cut=st.integers(0, 200), more=st.booleans())
def test_a_log_that_was_cut_off_anywhere_keeps_every_whole_entry(cut: int, more: bool, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("log") / "jobs.jsonl"
    log = Log(path)
    entries = [{"job": f"{number:06}", "set": {"name": "n" * number}} for number in range(5)]
    for entry in entries:
        log.append(entry)
    log.close()
    content = path.read_bytes()
    path.write_bytes(content[: max(0, len(content) - cut)])
    whole = content[: max(0, len(content) - cut)].count(b"\n")
    opened = Log(path)
    added = [{"job": "000009", "set": {}}] if more else []
    for entry in added:
        opened.append(entry)
    assert list(opened.entries()) == [*entries[:whole], *added]


def test_a_damaged_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(b'{"job": "1"}\n\x00\xff{{\n[1]\n{"job": "2"}\n')
    assert [entry["job"] for entry in Log(path).entries()] == ["1", "2"]


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    log = Log(tmp_path / "jobs.jsonl")
    log.append({"job": "000001", "set": {}})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 10, hard))
    try:
        with pytest.raises(ResourceError, match="the disk is full"):
            log.append({"job": "000002", "set": {"name": "x" * 100}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    log.append({"job": "000003", "set": {}})
    assert [entry["job"] for entry in log.entries()] == ["000001", "000003"]


def test_entries_make_a_job() -> None:
    job: Job | None = None
    for entry in (
        {"job": "000001", "set": CREATED},
        {"job": "000001", "set": {"state": "running"}},
        {"job": "000001", "result": {**RESULT, "name": "0002"}},
        {"job": "000001", "result": RESULT},
        {"job": "000001", "result": {**RESULT, "starred": True}},
    ):
        job = applied(job, entry)
    assert job is not None
    assert (job.state, [each.name for each in job.results]) == ("running", ["0001", "0002"])
    assert job.changes == 5
    assert [each.starred for each in job.results] == [True, False]
