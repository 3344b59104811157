"""The jobs of a studio, as the log has them; every change is on the disk before anyone hears of it."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sdxl_mel.errors import ResourceError, SdxlMelError
from sdxl_mel.studio.forms import STAGES
from sdxl_mel.studio.job import Job, Result, applied, id_of, number_of
from sdxl_mel.studio.log import Log


class ConflictError(SdxlMelError):
    """A job is not in a state in which that can be done to it."""


class UnknownError(SdxlMelError):
    """There is no such job, or none any more."""


class History:
    """The jobs in their order; `on_change` is called with a job that has changed, `on_problem` with a sentence."""

    def __init__(self, path: Path, on_change: Callable[[Job], None], on_problem: Callable[[str], None]) -> None:
        self.on_change, self.on_problem = on_change, on_problem
        self.jobs: dict[str, Job] = {}
        self._newest = 0
        self._log = Log(path)
        for entry in self._log.entries():
            with suppress(ValidationError, ValueError, LookupError, TypeError):
                self._newest = max(self._newest, number_of(entry["job"]))
                job = applied(self.jobs.get(entry["job"]), entry)
                if job.stage in STAGES:
                    self.jobs[job.id] = job

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def next_id(self) -> str:
        """Return an id that no job has had."""
        return id_of(self._newest + 1)

    def job(self, identifier: str) -> Job:
        """Return a job. Raises UnknownError where there is none."""
        job = self.jobs.get(identifier)
        if job is None or job.removed:
            raise UnknownError(f"{identifier[:40]}: no such job")
        return job

    def listed(self, before: str | None, limit: int, stage: str | None, starred: bool | None) -> tuple[list[Job], bool]:
        """Return the newest jobs older than `before`, and whether there are more."""
        found = [
            job
            for job in reversed(self.jobs.values())
            if not job.removed
            and (before is None or job.id < before)
            and (stage is None or job.stage == stage)
            and (starred is None or any(each.starred for each in job.results) == starred)
        ]
        return found[:limit], len(found) > limit

    def set(self, identifier: str, *, must: bool = False, **fields: Any) -> Job:
        """State fields of a job, which is new where there is none of that id; see `_apply`."""
        return self._apply({"job": identifier, "set": fields}, must)

    def add_result(self, identifier: str, result: Result) -> Job:
        """Add a result to a job, or replace the one of that name."""
        return self._apply({"job": identifier, "result": result.model_dump(mode="json")})

    def _apply(self, entry: Mapping[str, Any], must: bool = False) -> Job:
        """Change a job: first on the disk, then here, then in the pages.

        What cannot be written because the disk is full is told to the pages, and holds until the server ends: a job
        is then taken up as the log has it. With `must` it raises ResourceError instead, and nothing is changed.
        """
        job = applied(self.jobs.get(entry["job"]), entry)
        try:
            self._log.append(entry)
        except ResourceError as error:
            if must:
                raise
            self.on_problem(str(error))
        self.jobs[job.id] = job
        self._newest = max(self._newest, number_of(job.id))
        self.on_change(job)
        return job
