"""The studio itself: jobs that are asked for, done one after the other, and told to every page; all from one log."""

import asyncio
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import ExitStack, aclosing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from sdxl_mel.arguments import format_arguments
from sdxl_mel.config import StageConfig
from sdxl_mel.errors import InputError, SdxlMelError
from sdxl_mel.files.run import METRICS_NAME, is_run
from sdxl_mel.files.writer import held
from sdxl_mel.studio import processes
from sdxl_mel.studio.artefacts import FOLDER, Artefacts
from sdxl_mel.studio.drawing import DrawingProcess
from sdxl_mel.studio.events import Event, Events
from sdxl_mel.studio.forms import STAGES, checked, command_of
from sdxl_mel.studio.history import ConflictError, History, UnknownError
from sdxl_mel.studio.job import ENDED, Job, Parent, Result, folder_of

BEGUN_AGAIN = "begun again: the studio was ended while this was drawn; what was finished is kept, the rest drawn anew"
MOST_ATTEMPTS = 2
"""A job during which the drawing process died is begun once more, and again after every result."""
FOLLOW_SECONDS = 0.25
CONTINUED = {"prepare", "cache"}
"""Commands that bring up to date what is there."""
STOPPED_CODE, WITH_FAILURES, WITH_SKIPPED = 130, 1, 3
"""What commands end with: told to stop; a threshold is not met; inputs were left out."""
MOST_MESSAGES = 500
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
"""A name of a folder of results."""


class Studio:
    """The jobs of one root, and what does them; all methods are called in the one thread of the server."""

    def __init__(self, root: Path) -> None:
        self.artefacts = Artefacts(root)
        self.root = self.artefacts.root
        self.folder = self.root / FOLDER
        self.blocks = self.folder / ".blocks"
        self._held = ExitStack()
        refusal = f"{self.root}: a studio is open on it already; use that one, or give another --root"
        self._held.enter_context(held(self.folder, refusal))
        self.history = History(self.folder / "jobs.jsonl", self._tell_job, self._tell_problem)
        self.events = Events(f"{datetime.now(UTC):%Y%m%d%H%M%S}")
        self.drawing = DrawingProcess(self.root, self._tell_drawing)
        self.messages: dict[str, list[str]] = {}
        self.progress: dict[str, dict[str, Any]] = {}
        self._wake = {"worker": asyncio.Event(), "process": asyncio.Event()}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Take up what was not finished: drawings are drawn again from where they were, processes are followed."""
        for job in list(self.history.jobs.values()):
            if job.state not in ("running", "stopping"):
                continue
            if STAGES[job.stage].runs == "worker" and job.state == "stopping":
                self.history.set(job.id, state="cancelled", ended=now())
            elif STAGES[job.stage].runs == "worker":
                notes = [*(note for note in job.notes if note != BEGUN_AGAIN), BEGUN_AGAIN]
                self.history.set(job.id, state="waiting", notes=notes)
            elif not processes.begun(folder_of(self.folder, job.id)):
                self.history.set(job.id, state="waiting")
            elif not processes.lives(folder_of(self.folder, job.id)):
                self._end_process(job)
        self._tasks = [asyncio.create_task(self._draw()), asyncio.create_task(self._run())]
        for task in self._tasks:
            task.add_done_callback(_report_failure)

    async def close(self) -> None:
        """End the drawing process; commands that are processes of their own go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.drawing.end()
        self.history.close()
        self._held.close()

    def check(self, stage: str, settings: Mapping[str, JsonValue], out: str, **more: JsonValue) -> StageConfig:
        """Return the settings of a command as it runs here; see `forms.checked`."""
        return checked(stage, settings, out, self.artefacts.stated, **more)

    def out_of(self, stage: str, name: str) -> str:
        """Return where the results of a job lie, below the root. Raises InputError for a name that is no plain one."""
        if not NAME.fullmatch(name):
            raise InputError(f"name: found {name!r}; expected letters, digits, '-', '_' and '.'")
        if stage not in STAGES:
            raise InputError(f"stage: found {stage!r}; expected one of {', '.join(STAGES)}")
        return f"{STAGES[stage].folder}/{name}"

    def submit(
        self, stage: str, settings: Mapping[str, JsonValue], name: str | None = None, parent: Parent | None = None
    ) -> Job:
        """Add a job, which begins when its turn comes. Raises InputError for settings that its command would refuse."""
        identifier = self.history.next_id()
        out = self.out_of(stage, name or identifier)
        if stage not in CONTINUED and (self.root / out).exists():
            raise InputError(f"name: {out} is there already; choose another")
        config = self.check(stage, settings, out)
        fields = {
            "stage": stage,
            "name": name or identifier,
            "settings": dict(settings),
            "out": out,
            "command": command_of(stage, config),
            "created": now(),
            "parent": None if parent is None else parent.model_dump(),
        }
        job = self.history.set(identifier, must=True, **fields)
        self._wake[STAGES[stage].runs].set()
        return job

    def cancel(self, identifier: str) -> Job:
        """Stop a job: a drawing within a step, a process as Ctrl-C does, and when it is asked again at once."""
        job = self.history.job(identifier)
        if job.state == "waiting":
            return self.history.set(identifier, state="cancelled", ended=now())
        if job.state in ENDED:
            raise ConflictError(f"job {identifier} has ended ({job.state}); there is nothing to stop")
        if STAGES[job.stage].runs == "worker":
            self.history.set(identifier, state="stopping")
            self.drawing.stop(identifier)
        else:
            number = signal.SIGKILL if job.state == "stopping" else signal.SIGINT
            self.history.set(identifier, state="stopping")
            processes.stop(folder_of(self.folder, identifier), number)
        return self.history.jobs[identifier]

    def again(self, identifier: str) -> Job:
        """Let a job that ended before it was finished wait again; what it has done stays done."""
        job = self.history.job(identifier)
        if job.state not in ENDED - {"finished"}:
            raise ConflictError(
                f"job {identifier} is {job.state}; only one that ended unfinished can be taken up again"
            )
        self.history.set(identifier, state="waiting", error=None, ended=None, attempts=0)
        self._wake[STAGES[job.stage].runs].set()
        return self.history.jobs[identifier]

    def remove(self, identifier: str) -> None:
        """Take a job out of the history; its files stay."""
        if self.history.job(identifier).state not in ENDED | {"waiting"}:
            raise ConflictError(f"job {identifier} is running; stop it first")
        self.history.set(identifier, removed=True)

    def star(self, identifier: str, result: str, starred: bool) -> Job:
        """Give a result a star, or take it back."""
        found = self.history.job(identifier).result(result)
        if found is None:
            raise UnknownError(f"job {identifier} has no result {result!r}")
        return self.history.add_result(identifier, found.model_copy(update={"starred": starred}))

    def said(self, identifier: str) -> list[str]:
        """Return the last messages of a job."""
        job = self.history.job(identifier)
        if STAGES[job.stage].runs == "worker":
            return self.messages.get(identifier, [])
        return processes.said(folder_of(self.folder, identifier))[-MOST_MESSAGES:]

    async def sound_of(self, picture: Path, sound: Path) -> None:
        """Write the sound of a picture, unless it is there; the drawing process makes it when its turn comes.

        Raises SdxlMelError, in the words of the process, where it cannot.
        """
        if sound.exists():
            return
        message = {"do": "sound", "job": f"sound {sound.name}", "picture": str(picture), "sound": str(sound)}
        async with aclosing(self.drawing.do(message)) as heard:
            async for said in heard:
                if said["event"] == "ended" and said["state"] == "failed":
                    raise InputError(said["error"])

    async def _draw(self) -> None:
        """Draw the jobs that wait, in their order."""
        while True:
            job = await self._next("worker")
            try:
                config = self.check(job.stage, job.settings, job.out)
            except SdxlMelError as error:
                self.history.set(job.id, state="failed", error=str(error), ended=now())
                continue
            self.history.set(job.id, state="running", started=job.started or now())
            shutil.rmtree(self.blocks, ignore_errors=True)
            for half_made in (self.root / job.out).rglob(".*.tmp"):  # By a process that was killed.
                with suppress(OSError):
                    half_made.unlink()
            about = {
                "stage": job.stage,
                "settings": config.model_dump(mode="json"),
                "folder": job.out,
                "blocks": str(self.blocks / job.id),
            }
            message = {"do": "draw", "job": job.id, **about}
            try:
                async with aclosing(self.drawing.do(message)) as heard:
                    async for said in heard:
                        self._hear(job.id, said)
            except SdxlMelError as error:
                self._drawing_died(job.id, str(error))
            self.progress.pop(job.id, None)
            self.tell_artefacts()

    def _drawing_died(self, identifier: str, reason: str) -> None:
        job = self.history.jobs[identifier]
        attempts = job.attempts + 1
        if job.state == "stopping":
            self.history.set(identifier, state="cancelled", ended=now())
        elif attempts < MOST_ATTEMPTS:
            self.history.set(
                identifier, state="waiting", attempts=attempts, notes=[*job.notes, f"begun again: {reason}"]
            )
        else:
            self.history.set(identifier, state="failed", error=reason, ended=now(), attempts=attempts)

    def _hear(self, identifier: str, said: Mapping[str, Any]) -> None:
        """Take in what the drawing process says of a job."""
        job = self.history.jobs[identifier]
        match said["event"]:
            case "step":
                step = {key: said[key] for key in ("number", "total", "previews")}
                self.events.tell("step", {"job": identifier, **step}, keep=False)
            case "progress":
                self._tell_progress(identifier, said["progress"])
            case "message":
                self._tell_message(identifier, said["text"])
            case "opened":
                self.history.set(identifier, spec=said["spec"])
            case "block":
                url = f"/api/jobs/{identifier}/blocks/{said['block']['result']}/{said['block']['number']}"
                self.events.tell("block", {"job": identifier, **said["block"], "sound": url})
            case "result":
                earlier = job.result(said["result"]["name"])
                if earlier is None and job.attempts:
                    self.history.set(identifier, attempts=0)
                more = {
                    "starred": earlier is not None and earlier.starred,
                    "command": self._alone(job, said["result"]),
                }
                self.artefacts.changed()
                self.history.add_result(identifier, Result.model_validate({**said["result"], **more}))
            case "ended":
                notes = [*job.notes, *(note for note in said.get("notes", ()) if note not in job.notes)]
                ended = {"state": said["state"], "error": said.get("error"), "summary": said.get("summary")}
                self.history.set(identifier, **ended, notes=notes, ended=now())

    async def _run(self) -> None:
        """Run the commands that wait, one at a time, and follow the one that runs."""
        for job in [each for each in self.history.jobs.values() if each.state in ("running", "stopping")]:
            if STAGES[job.stage].runs == "process":
                await self._follow(job)
        while True:
            job = await self._next("process")
            folder = folder_of(self.folder, job.id)
            try:
                begun = job.stage == "train" and job.started is not None and is_run(self.root / job.out)
                config = self.check(job.stage, job.settings, job.out, **({"resume": True} if begun else {}))
                if job.stage == "train" and self.drawing.state == "ready":
                    # The models of both may not fit; the next drawing opens them again.
                    await self.drawing.end()
                job = self.history.set(job.id, state="running", started=job.started or now())
                process = processes.start(folder, [job.stage, *format_arguments(config)], self.root)
            except SdxlMelError as error:
                self.history.set(job.id, state="failed", error=str(error), ended=now())
                continue
            await self._follow(job, process)

    async def _follow(self, job: Job, process: Any = None) -> None:
        """Tell what a process writes until it ends; `process` is given for one that this server started."""
        folder, run = folder_of(self.folder, job.id), self.root / job.out
        events = processes.Tail(folder / processes.EVENTS, skip=process is None)
        metrics = processes.Tail(run / METRICS_NAME, skip=True)
        while True:
            alive = processes.lives(folder)
            for event in events.events():
                match event:
                    case {"event": "message", "text": str(text)} if not event.get("detail"):
                        self._tell_message(job.id, text)
                    case {"event": "advanced" | "started"}:
                        self._tell_progress(job.id, {key: event[key] for key in event if key not in ("event", "job")})
            rows = [row for row in metrics.rows() if "step" in row]
            if rows:
                self.events.tell("metrics", {"job": job.id, "rows": rows}, keep=False)
            if not alive:
                break
            await asyncio.sleep(FOLLOW_SECONDS)
        if process is not None:
            process.wait()
        self._end_process(self.history.jobs[job.id])

    def _end_process(self, job: Job) -> None:
        """Take in how a process has ended."""
        folder = folder_of(self.folder, job.id)
        code, said = processes.exit_code(folder), processes.said(folder)
        last = next((line for line in reversed(said) if line.strip()), "")
        ended: dict[str, Any] = {"ended": now(), "summary": processes.report(folder) or None}
        if code is None or code < 0:
            state = "cancelled" if job.state == "stopping" else "interrupted"
            why = "its process was killed; take it up again to go on from what it saved"
            ended |= {"state": state, "error": None if state == "cancelled" else why}
        elif code == STOPPED_CODE:
            ended |= {"state": "cancelled"}
        elif code in (0, WITH_FAILURES, WITH_SKIPPED):
            ended |= {"state": "finished"}
        else:
            ended |= {"state": "failed", "error": last or f"the command ended with code {code}"}
        self.progress.pop(job.id, None)
        self.history.set(job.id, **ended)
        self.tell_artefacts()

    async def _next(self, runs: str) -> Job:
        """Return the oldest job that waits for the worker, or for a process, when there is one."""
        while True:
            for job in self.history.jobs.values():
                if job.state == "waiting" and not job.removed and STAGES[job.stage].runs == runs:
                    return job
            self._wake[runs].clear()
            await self._wake[runs].wait()

    def described(self, job: Job) -> dict[str, Any]:
        """Return a job as the pages see it: with addresses in the place of files."""
        fields = job.model_dump(mode="json", exclude={"removed", "out", "attempts", "results"})
        out = self.root / job.out
        results = []
        for each in job.results:
            files = {"picture": each.picture, "sound": each.sound}
            names = {kind: self.artefacts.identifier(out / name) for kind, name in files.items() if name}
            urls = {kind: f"/api/jobs/{job.id}/files/{name}" if name else None for kind, name in files.items()}
            results.append({**each.model_dump(mode="json"), **urls, "artefact": names})
        more = {"artefact": self.artefacts.identifier(out), "progress": self.progress.get(job.id), "results": results}
        return fields | more

    def _alone(self, job: Job, result: Mapping[str, Any]) -> str:
        """Return the command that makes one result; that of the job where it depends on the others."""
        shared = (
            job.settings.get("ab")
            or job.settings.get("prompts")
            or (job.settings.get("prompt_to") and not job.settings.get("seconds"))
        )
        if job.stage != "generate" or shared:
            return job.command
        with suppress(SdxlMelError):
            single = {**job.settings, "seed": result["seed"], "num": 1}
            return command_of(job.stage, self.check(job.stage, single, f"{job.name}-{result['name']}"))
        return job.command

    def _tell_progress(self, identifier: str, progress: dict[str, Any]) -> None:
        self.progress[identifier] = {key: value for key, value in progress.items() if key != "job"}
        self.events.tell("progress", {"job": identifier, "progress": self.progress[identifier]}, keep=False)

    def _tell_message(self, identifier: str, text: str) -> None:
        kept = self.messages.setdefault(identifier, [])
        kept.append(text)
        del kept[:-MOST_MESSAGES]
        self.events.tell("message", {"job": identifier, "text": text})

    def tell_artefacts(self) -> None:
        """Tell the pages that something below the root has come or gone."""
        self.artefacts.changed()
        self.events.tell("artefacts", {})

    def _tell_job(self, job: Job) -> None:
        if job.removed:
            self.events.tell("removed", {"job": job.id})
        else:
            self.events.tell("job", self.described(job))

    def _tell_problem(self, sentence: str) -> None:
        self.events.tell("problem", {"error": sentence})

    def _tell_drawing(self) -> None:
        self.events.tell("worker", self.drawing.described())

    def hello(self) -> Event:
        """Return the first event of every page."""
        return Event("hello", {"worker": self.drawing.described()})


def _report_failure(task: asyncio.Task[None]) -> None:
    """Say on the terminal that a task has failed, which it never should."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": "the studio draws no more", "exception": error, "task": task}
        )


def now() -> str:
    """Return the time as a text that sorts."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
