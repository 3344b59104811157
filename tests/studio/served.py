"""A studio as people start it: a process that serves, and what a script hears of it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 120.0
ENDED = ("finished", "failed", "cancelled", "interrupted")


class Served:
    """A server process, and what can be asked of it."""

    def __init__(self, root: Path) -> None:
        words = ["studio", "--root", str(root), "--port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sdxl_mel", *words],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", self.said)
        assert found is not None, self.said + self.process.stderr.read()
        self.address = found[0]

    def read(self, path: str) -> bytes:
        """Return a file."""
        with urllib.request.urlopen(self.address + path, timeout=PATIENCE) as answer:
            content: bytes = answer.read()
            return content

    def ask(self, path: str, values: object = None, method: str | None = None) -> Any:
        """Ask for JSON, with a body by POST, or by another method."""
        body = None if values is None else json.dumps(values).encode()
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read())

    def submit(self, stage: str, name: str | None = None, **settings: Any) -> str:
        """Add a job and return its id."""
        job: str = self.ask("/api/jobs", {"stage": stage, "settings": settings, "name": name})["id"]
        return job

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what is told, from now on."""
        stream = urllib.request.urlopen(self.address + "/api/events", timeout=PATIENCE)
        return self._events(stream)

    def _events(self, stream: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        name = ""
        for line in stream:
            field, _, value = line.decode().rstrip("\r\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)

    def until(self, job: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until a job is as `reached` wants it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found: dict[str, Any] = self.ask(f"/api/jobs/{job}")
            if reached(found):
                return found
            time.sleep(0.05)
        raise AssertionError(found)

    def until_started(self) -> int:
        """Wait for the drawing process, and return its number."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            worker = self.ask("/api")["worker"]
            if worker["process"] is not None:
                process: int = worker["process"]
                return process
            time.sleep(0.05)
        raise AssertionError(worker)

    def ended(self, job: str) -> dict[str, Any]:
        """Wait for the end of a job."""
        return self.until(job, lambda found: found["state"] in ENDED)

    def end(self, number: int = signal.SIGINT) -> None:
        """Send a signal to the server and wait for its end."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def served(root: Path) -> Iterator[Served]:
    """Yield a studio of a root; it is ended as Ctrl-C does."""
    studio = Served(root)
    try:
        yield studio
    finally:
        if studio.process.poll() is None:
            studio.end()


def resident_megabytes(process: int) -> float:
    """Return the memory of a process."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]
