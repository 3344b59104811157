"""A job of the studio, and the entries of its log from which it is made again after a restart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue

from sdxl_mel.files.header import Frozen

State = Literal["waiting", "running", "stopping", "finished", "failed", "cancelled", "interrupted"]
"""A job waits, runs, is told to stop, and ends; "interrupted" is one whose process ended without a word."""
ENDED: frozenset[State] = frozenset({"finished", "failed", "cancelled", "interrupted"})


class Result(Frozen):
    """One finished result: the names of its files in the job's folder, and what the list of results says of it.

    `seams` are the seconds at which the views of a long piece meet, `command` makes this result alone.
    """

    name: str
    picture: str
    sound: str | None
    prompt: str
    negative_prompt: str
    seed: int
    candidate_seed: int
    seconds: float
    loop: bool
    seams: tuple[float, ...] = ()
    seam_scores: tuple[float | None, ...] = ()
    junction: float | None = None
    inconsistency: tuple[float, ...] = ()
    alignment: tuple[float, ...] = ()
    command: str = ""
    starred: bool = False


class Parent(Frozen):
    """The result that a job was made from, and how: varied, continued, compared, ..."""

    job: str
    result: str
    how: str


class Job(Frozen):
    """What was asked for and what became of it; `settings` are as they were given, `out` is relative to the root.

    `attempts` counts the drawing processes that died since its last result, `changes` its entries in the log.
    """

    id: str = Field(pattern=r"^[0-9]{6,}$")
    stage: str
    name: str
    settings: dict[str, JsonValue]
    out: str
    command: str
    created: str
    parent: Parent | None = None
    state: State = "waiting"
    started: str | None = None
    ended: str | None = None
    error: str | None = None
    summary: str | None = None
    notes: tuple[str, ...] = ()
    spec: dict[str, JsonValue] | None = None
    results: tuple[Result, ...] = ()
    attempts: int = 0
    changes: int = 0
    removed: bool = False

    def result(self, name: str) -> Result | None:
        """Return the result of that name."""
        return next((each for each in self.results if each.name == name), None)

    def file(self, name: str) -> bool:
        """Return whether a file of that name is a picture or a sound of one of the results."""
        return any(name in (each.picture, each.sound) for each in self.results)


def applied(job: Job | None, entry: Mapping[str, Any]) -> Job:
    """Return a job as it is after an entry of the log: `set` states fields anew, `result` adds or replaces one result.

    Raises ValueError for an entry that says something else.
    """
    fields = {} if job is None else job.model_dump(mode="json")
    fields |= {"id": entry["job"], **entry.get("set", {}), "changes": fields.get("changes", 0) + 1}
    if "result" in entry:
        result = entry["result"]
        others = [each for each in fields["results"] if each["name"] != result["name"]]
        fields["results"] = sorted([*others, result], key=lambda each: each["name"])
    return Job.model_validate(fields)


def number_of(identifier: str) -> int:
    """Return the number of a job, of which its id is made by `id_of`."""
    return int(identifier)


def id_of(number: int) -> str:
    """Return the id of the n-th job."""
    return f"{number:06}"


def folder_of(studio: Path, identifier: str) -> Path:
    """Return the folder of what a job that is a process says."""
    return studio / ".processes" / identifier
