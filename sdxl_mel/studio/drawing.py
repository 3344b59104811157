"""The server's side of the drawing process: started when it is needed, started again when it has died."""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from sdxl_mel.errors import ResourceError
from sdxl_mel.studio.messages import LONGEST, format_message, parse_message

State = Literal["resting", "starting", "ready", "busy"]
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "NO_COLOR": "1"}
"""No request leaves this machine."""
PATIENCE_SECONDS = 10.0
"""A job that was told to stop and has not by then, because a large model is being opened, is ended with its process."""
KEPT_LINES = 20


class DrawingProcess:
    """One process at most, which does one job at a time; `on_change` is called when its state changes."""

    def __init__(self, root: Path, on_change: Callable[[], None]) -> None:
        self.root, self.on_change = root, on_change
        self.state: State = "resting"
        self.job: str | None = None
        self.base: str | None = None
        self.reason: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._said: deque[str] = deque(maxlen=KEPT_LINES)
        self._listener: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._impatient: asyncio.TimerHandle | None = None
        self._starting: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._stopped: set[str] = set()
        self._told_to_stop = asyncio.Event()

    def described(self) -> dict[str, Any]:
        """Return the state as the pages are told it."""
        process = None if self._process is None else self._process.pid
        return {"state": self.state, "job": self.job, "base": self.base, "process": process, "reason": self.reason}

    async def do(self, message: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Do a job when its turn has come, and yield what the process says of it; the last is "ended".

        Raises ResourceError, which says why, when the process dies.
        """
        async with self._turn:
            self.job = message["job"]
            self._told_to_stop.clear()
            if self.job in self._stopped:
                self._told_to_stop.set()
            try:
                process = await self._started()
                if self._told_to_stop.is_set():
                    yield {"event": "ended", "job": self.job, "state": "cancelled"}
                    return
                assert process is not None
                self._become("busy")
                self._send(process, message)
                while True:
                    said = await self._heard(process)
                    if said.get("job") != message["job"]:
                        continue
                    if said["event"] == "opened":
                        self.base = said["base"]
                    yield said
                    if said["event"] == "ended":
                        return
            finally:
                self._stopped.discard(message["job"])
                self.job = None
                if self._impatient is not None:
                    self._impatient.cancel()
                    self._impatient = None
                if self._process is not None and self.state == "busy":
                    self._become("ready")

    def stop(self, job: str) -> None:
        """Tell a job to stop, or not to begin; the process is ended if that takes too long."""
        if self.job != job:
            self._stopped.add(job)
            return
        self._told_to_stop.set()
        if self._process is None or self.state != "busy":
            return
        self._send(self._process, {"do": "stop", "job": job})
        if self._impatient is None:
            self._impatient = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._process.kill)

    async def end(self) -> None:
        """End the process, and with it what it is doing."""
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._gone()

    async def _started(self) -> asyncio.subprocess.Process | None:
        """Return the process, started if there is none or if it died while it had nothing to do.

        None where the job was told to stop meanwhile: the process goes on starting, for the next one.
        """
        if self._starting is None:
            if self._process is not None and self._process.returncode is None:
                return self._process
            self._starting = asyncio.create_task(self._start())
        told = asyncio.create_task(self._told_to_stop.wait())
        try:
            await asyncio.wait({self._starting, told}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
        if not self._starting.done():
            return None
        starting, self._starting = self._starting, None
        return starting.result()

    async def _start(self) -> asyncio.subprocess.Process:
        if self._process is not None:
            self.reason = reason_of(self._process.returncode, self._said)
        self._become("starting")
        self._said.clear()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "sdxl_mel.studio.worker",
            cwd=self.root,
            env={**os.environ, **OFFLINE, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LONGEST,
            # Ctrl-C is for the server, which ends the process when it ends.
            start_new_session=True,
        )
        self._listener = asyncio.create_task(self._listen(self._process))
        while (await self._heard(self._process))["event"] != "ready":
            pass
        self._become("ready")
        return self._process

    async def _heard(self, process: asyncio.subprocess.Process) -> dict[str, Any]:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if line:
            return parse_message(line)
        code = await process.wait()
        if self._listener is not None:
            await self._listener
        self.reason = reason_of(code, self._said)
        self._gone()
        raise ResourceError(self.reason)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        with suppress(ValueError):  # A line without an end.
            async for line in process.stderr:
                self._said.append(line.decode(errors="replace").rstrip())

    def _send(self, process: asyncio.subprocess.Process, message: Mapping[str, Any]) -> None:
        assert process.stdin is not None
        with suppress(ConnectionError):  # It has died, which is heard on the other side.
            process.stdin.write(format_message(message))

    def _gone(self) -> None:
        self._process = self.base = None
        self._become("resting")

    def _become(self, state: State) -> None:
        self.state = state
        self.on_change()


def reason_of(code: int | None, said: deque[str]) -> str:
    """Return why a process ended: what it said last, or the signal that ended it."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        why = ": most likely the memory ran out" if -code == signal.SIGKILL else ""
        return f"the drawing process was ended by {name}{why}; what was finished is kept"
    last = next((line for line in reversed(said) if line.strip()), "it said nothing")
    return f"the drawing process ended with code {code}: {last}"
