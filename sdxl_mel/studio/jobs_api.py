"""The routes of forms, jobs and events."""

from collections.abc import AsyncIterator

from pydantic import JsonValue
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from sdxl_mel import __version__
from sdxl_mel.commands import COMMANDS
from sdxl_mel.errors import InputError
from sdxl_mel.files.header import Frozen
from sdxl_mel.studio import uploads
from sdxl_mel.studio.blocks import block_path
from sdxl_mel.studio.events import Event
from sdxl_mel.studio.forms import STAGES, command_of, described, form
from sdxl_mel.studio.history import UnknownError
from sdxl_mel.studio.job import Parent
from sdxl_mel.studio.requests import body_of, flag, number
from sdxl_mel.studio.studio import Studio

MOST_JOBS = 200
RETRY_MILLISECONDS = 1000


class Asked(Frozen):
    """What a job is asked to do."""

    stage: str
    settings: dict[str, JsonValue]
    name: str | None = None
    parent: Parent | None = None


class Stated(Frozen):
    """Settings to be checked."""

    settings: dict[str, JsonValue]


class Starred(Frozen):
    """Whether a result has a star."""

    starred: bool


class JobsApi:
    """Answers what pages and scripts ask of jobs."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api", self.overview),
            Route("/api/stages/{stage}", self.form),
            Route("/api/stages/{stage}/check", self.check, methods=["POST"]),
            Route("/api/jobs", self.jobs, methods=["GET"]),
            Route("/api/jobs", self.submit, methods=["POST"]),
            Route("/api/jobs/{job}", self.job),
            Route("/api/jobs/{job}/cancel", self.cancel, methods=["POST"]),
            Route("/api/jobs/{job}/again", self.again, methods=["POST"]),
            Route("/api/jobs/{job}/remove", self.remove, methods=["POST"]),
            Route("/api/jobs/{job}/results/{result}", self.star, methods=["POST"]),
            Route("/api/jobs/{job}/files/{name:path}", self.file),
            Route("/api/jobs/{job}/blocks/{result}/{number:int}", self.block),
            Route("/api/jobs/{job}/messages", self.messages),
            Route("/api/events", self.events),
        ]

    async def overview(self, _request: Request) -> Response:
        """Say what this server is."""
        stages = [{"name": name, "purpose": COMMANDS[name].purpose, "runs": each.runs} for name, each in STAGES.items()]
        limits = {"upload_bytes": uploads.MOST_BYTES, "upload_seconds": uploads.MOST_SECONDS}
        return JSONResponse(
            {
                "version": __version__,
                "root": self.studio.root.name,
                "worker": self.studio.drawing.described(),
                "limits": limits,
                "stages": stages,
            }
        )

    async def form(self, request: Request) -> Response:
        """Say what settings a command has."""
        return JSONResponse(form(request.path_params["stage"]))

    async def check(self, request: Request) -> Response:
        """Say what settings mean, and the command that states them."""
        stage = request.path_params["stage"]
        stated = await body_of(request, Stated)
        config = self.studio.check(stage, stated.settings, self.studio.out_of(stage, "OUT"))
        return JSONResponse({"settings": described(stage, config), "command": command_of(stage, config)})

    async def jobs(self, request: Request) -> Response:
        """List jobs, the newest first."""
        query = request.query_params
        limit = number(request, "limit", 50, MOST_JOBS)
        found, more = self.studio.history.listed(
            query.get("before"), limit, query.get("stage"), flag(request, "starred")
        )
        return JSONResponse({"jobs": [self.studio.described(job) for job in found], "more": more})

    async def submit(self, request: Request) -> Response:
        """Add a job."""
        asked = await body_of(request, Asked)
        job = self.studio.submit(asked.stage, asked.settings, asked.name, asked.parent)
        return JSONResponse(self.studio.described(job), 201)

    async def job(self, request: Request) -> Response:
        """Say what has become of a job."""
        return JSONResponse(self.studio.described(self.studio.history.job(request.path_params["job"])))

    async def cancel(self, request: Request) -> Response:
        """Stop a job."""
        return JSONResponse(self.studio.described(self.studio.cancel(request.path_params["job"])))

    async def again(self, request: Request) -> Response:
        """Take a job up again."""
        return JSONResponse(self.studio.described(self.studio.again(request.path_params["job"])))

    async def remove(self, request: Request) -> Response:
        """Take a job out of the history."""
        self.studio.remove(request.path_params["job"])
        return JSONResponse({})

    async def star(self, request: Request) -> Response:
        """Give a result a star, or take it back."""
        starred = await body_of(request, Starred)
        job = self.studio.star(request.path_params["job"], request.path_params["result"], starred.starred)
        return JSONResponse(self.studio.described(job))

    async def file(self, request: Request) -> Response:
        """Send a picture or a sound of a result, or a part of it."""
        job, name = self.studio.history.job(request.path_params["job"]), request.path_params["name"]
        if not job.file(name):
            raise UnknownError(f"{name[:80]}: no file of a result of job {job.id}")
        path = self.studio.artefacts.below(f"{job.out}/{name}")
        if not path.is_file():
            raise UnknownError(f"{job.out}/{name}: no longer there; it was moved or deleted")
        kept = {"cache-control": "private, max-age=0, must-revalidate"}
        wanted = f"{job.name}-{name.replace('/', '-')}" if flag(request, "download") else None
        return FileResponse(path, filename=wanted, headers=kept)

    async def block(self, request: Request) -> Response:
        """Send a block of a sound that is being made, or was made last."""
        job, name = self.studio.history.job(request.path_params["job"]), request.path_params["result"]
        path = block_path(self.studio.blocks / job.id, name, request.path_params["number"])
        if not name.replace("-", "").isalnum() or not path.is_file():
            raise UnknownError(f"{name[:80]}: no such block of job {job.id} (any more); its sound may be finished")
        return FileResponse(path)

    async def messages(self, request: Request) -> Response:
        """Say what a job has said."""
        return JSONResponse({"messages": self.studio.said(request.path_params["job"])})

    async def events(self, request: Request) -> Response:
        """Tell everything as it happens."""
        last = request.headers.get("last-event-id") or request.query_params.get("last")
        if last is not None and len(last) > 64:
            raise InputError("last-event-id: longer than any that this server gives")
        heard = self.studio.events.heard(last, self.studio.hello())

        async def sent() -> AsyncIterator[ServerSentEvent]:
            async for event in heard:
                yield _server_sent(event)

        return EventSourceResponse(sent(), ping=15)


def _server_sent(event: Event) -> ServerSentEvent:
    content = JSONResponse(dict(event.data)).body
    retry = RETRY_MILLISECONDS if event.name == "hello" else None
    return ServerSentEvent(bytes(content).decode(), event=event.name, id=event.number, retry=retry)
