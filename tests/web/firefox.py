"""Firefox driven over its own protocol, Marionette: what playwright drives is a build of its own."""

import base64
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STARTING_SECONDS = 60


class Firefox:
    """A window of a running Firefox."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._number = 0
        self._receive()  # It says what it is.
        self._ask("WebDriver:NewSession", {"capabilities": {}})
        self._ask("WebDriver:SetTimeouts", {"script": 120_000, "pageLoad": 60_000})

    def go(self, address: str) -> None:
        """Open a page."""
        self._ask("WebDriver:Navigate", {"url": address})

    def evaluate(self, script: str) -> Any:
        """Return what the body of an async function gives."""
        wrapped = f"const done = arguments[0]; (async () => {{ {script} }})().then(done, done);"
        return self._ask("WebDriver:ExecuteAsyncScript", {"script": wrapped, "args": []})["value"]

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + seconds
        while not self.evaluate(f"return Boolean({condition});"):
            assert time.monotonic() < end, condition
            time.sleep(0.1)

    def screenshot(self) -> bytes:
        """Return what the window shows, as a PNG."""
        return base64.b64decode(self._ask("WebDriver:TakeScreenshot", {"full": False})["value"])

    def _ask(self, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        message = json.dumps([0, self._number, name, parameters]).encode()
        self._connection.sendall(f"{len(message)}:".encode() + message)
        _, _, error, result = self._receive()
        assert error is None, error
        return dict(result or {})

    def _receive(self) -> Any:
        head = b""
        while not head.endswith(b":"):
            head += self._connection.recv(1)
        body = b""
        while len(body) < int(head[:-1]):
            body += self._connection.recv(int(head[:-1]) - len(body))
        return json.loads(body)


@contextmanager
def firefox(program: str, profile: Path) -> Iterator[Firefox]:
    """Yield a Firefox without a window, with a profile of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (profile / "user.js").write_text(f'user_pref("marionette.port", {port});\n', encoding="utf-8")
    words = [program, "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield Firefox(_connected(port))
    finally:
        process.terminate()
        process.wait(timeout=20)


def _connected(port: int) -> socket.socket:
    end = time.monotonic() + STARTING_SECONDS
    while time.monotonic() < end:
        with suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), timeout=180)
        time.sleep(0.2)
    raise TimeoutError("Firefox does not answer")
