"""A studio that is served while a test runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from sdxl_mel.studio.app import open_app
from sdxl_mel.studio.server import listen


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Yield the address of the studio of a root."""
    listening = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server = uvicorn.Server(
        uvicorn.Config(open_app(root, ("127.0.0.1",)), log_level="error", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(timeout=20)
