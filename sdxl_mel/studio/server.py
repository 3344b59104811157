"""The server: listens on one address, serves one root, and ends with Ctrl-C."""

import socket
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import uvicorn

from sdxl_mel.errors import InputError, ResourceError
from sdxl_mel.progress import log
from sdxl_mel.studio.app import open_app
from sdxl_mel.studio.guard import NAMES_OF_THIS_MACHINE

PATIENCE_SECONDS = 2


def serve(
    root: Path, host: str, port: int, *, token: str | None = None, names: Sequence[str] = (), open_page: bool = False
) -> str:
    """Serve a root until Ctrl-C, and return the address of the page; `names` are hosts that it answers to as well.

    Raises InputError for a root that is none or that another studio has, ResourceError for a port that is taken.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --root is the folder of a project")
    listening = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    app = open_app(root, (*NAMES_OF_THIS_MACHINE, shown, *names), token)
    log(f"the studio of {root.resolve()} is at {address}{'?token=...' if token else ''}; Ctrl-C ends it")
    if open_page:
        webbrowser.open(address + (f"?token={token}" if token else ""))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=PATIENCE_SECONDS
    )
    with suppress(KeyboardInterrupt):  # It has ended by then.
        uvicorn.Server(config).run(sockets=[listening])
    return address


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises ResourceError where the port or the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # Who is quicker than the server waits for it.
    except OSError as error:
        listening.close()
        raise ResourceError(
            f"{host}:{port}: cannot listen there ({error.strerror}); is a studio open? another --port may be free"
        ) from error
    return listening
