"""The application: the page and its files, the routes of the API, and every error as one sentence."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sdxl_mel import web
from sdxl_mel.errors import InputError, MissingError, ResourceError, SdxlMelError
from sdxl_mel.studio import uploads
from sdxl_mel.studio.guard import Guard, refused
from sdxl_mel.studio.history import ConflictError, UnknownError
from sdxl_mel.studio.jobs_api import JobsApi
from sdxl_mel.studio.project_api import ProjectApi
from sdxl_mel.studio.requests import TooLargeError
from sdxl_mel.studio.studio import Studio

PAGE = "studio.html"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
STATUS: dict[type[SdxlMelError], int] = {
    UnknownError: 404,
    ConflictError: 409,
    TooLargeError: 413,
    InputError: 400,
    MissingError: 503,
    ResourceError: 507,
    SdxlMelError: 400,
}
"""The status of an answer by the kind of error, the first that fits."""


def open_app(root: Path, names: Iterable[str], token: str | None = None) -> ASGIApp:
    """Return the application of a root, which answers to host `names`; the studio is open while it is served.

    Raises InputError where another studio has the root.
    """
    studio = Studio(root)

    @asynccontextmanager
    async def life(_app: Starlette) -> AsyncIterator[None]:
        studio.start()
        try:
            yield
        finally:
            await studio.close()

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/web/{name:path}", asset),
            *JobsApi(studio).routes(),
            *ProjectApi(studio).routes(),
        ],
        exception_handlers={SdxlMelError: _failed, HTTPException: _refused, OSError: _lost, Exception: _unforeseen},
        lifespan=life,
    )
    return Guard(app, names, token, uploads.MOST_BYTES)


async def page(_request: Request) -> Response:
    """Send the page."""
    return _web_file(PAGE)


async def asset(request: Request) -> Response:
    """Send a file of the page."""
    return _web_file(request.path_params["name"])


def _web_file(name: str) -> Response:
    if name not in web.names():
        raise UnknownError(f"{name[:80]}: no file of the page")
    return Response(web.read(name), media_type=KINDS[Path(name).suffix])


async def _failed(_request: Request, error: Exception) -> Response:
    status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
    return refused(status, str(error))


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {404: "nothing is at this address; see docs/api.md", 405: "this address is not asked in this way"}
    return refused(error.status_code, sentences.get(error.status_code, str(error.detail)))


async def _lost(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    return refused(500, f"{Path(error.filename or '').name}: {error.strerror or error}")


async def _unforeseen(_request: Request, error: Exception) -> Response:
    return refused(500, f"the server failed ({type(error).__name__}); its terminal says more")
