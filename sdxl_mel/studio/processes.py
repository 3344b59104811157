"""Commands as processes of their own: started, followed by what they write, stopped, and found after a restart.

FOLDER/lock         held by the process for as long as it lives, whoever started it
FOLDER/events.txt   what it writes on stderr: progress as JSON lines, and its error
FOLDER/report.txt   what it prints at the end
FOLDER/process      its number, which is that of its group
FOLDER/exit.json    how it ended
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sdxl_mel.files.atomic import clear_os_errors, write_text
from sdxl_mel.studio.child import EXIT, PROCESS
from sdxl_mel.studio.drawing import OFFLINE

EVENTS, REPORT, LOCK = "events.txt", "report.txt", "lock"
MOST_REPORT = 4000


def start(folder: Path, words: Sequence[str], root: Path) -> subprocess.Popen[bytes]:
    """Start `sdxl-mel WORDS` in the root, in a session of its own. Raises ResourceError for a full disk."""
    with clear_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (EXIT, PROCESS):
            (folder / name).unlink(missing_ok=True)
        with (
            (folder / LOCK).open("ab") as lock,
            (folder / EVENTS).open("wb") as events,
            (folder / REPORT).open("wb") as report,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.set_inheritable(lock.fileno(), True)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sdxl_mel.studio.child", str(folder), *words, "--progress", "json"],
                cwd=root,
                env={**os.environ, **OFFLINE, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=report,
                stderr=events,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
        # The process writes it as well: by then it may have been told to stop, or this one killed.
        write_text(folder / PROCESS, f"{process.pid}\n")
        return process


def lives(folder: Path) -> bool:
    """Return whether the process of a folder is there; its number may be another's by now, its lock is not."""
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def begun(folder: Path) -> bool:
    """Return whether a process was ever started in a folder."""
    return lives(folder) or (folder / PROCESS).exists()


def stop(folder: Path, number: signal.Signals) -> None:
    """Send a signal to a process and its own, if it lives: SIGINT lets it save what it has."""
    if lives(folder):
        with suppress(ProcessLookupError, OSError, ValueError):
            os.killpg(int((folder / PROCESS).read_text()), number)


def exit_code(folder: Path) -> int | None:
    """Return how a process ended, None for one that was killed or still runs."""
    try:
        code = json.loads((folder / EXIT).read_bytes())["code"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return code if isinstance(code, int) else None


def report(folder: Path) -> str:
    """Return what a process printed at its end, the last of it where that is much."""
    with suppress(OSError):
        return (folder / REPORT).read_text(encoding="utf-8", errors="replace").strip()[-MOST_REPORT:]
    return ""


def said(folder: Path) -> list[str]:
    """Return the messages of a process, and what it wrote besides: its error."""
    lines = []
    for event in Tail(folder / EVENTS).events():
        if event["event"] == "message" and not event.get("detail"):
            lines.append(str(event["text"]))
    return lines


class Tail:
    """What is added to a file of lines since it was last asked for; a line that has no end yet is left for later.

    With `skip` what was there at first is not told.
    """

    def __init__(self, path: Path, skip: bool = False) -> None:
        self.path, self.read = path, path.stat().st_size if skip and path.exists() else 0

    def lines(self) -> Iterator[str]:
        """Yield the new lines."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self.read:
                    self.read = 0  # Written anew.
                file.seek(self.read)
                new = file.read()
        except OSError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self.read += len(whole)
        yield from whole.decode("utf-8", "replace").splitlines()

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the new lines as events; what is no event is a message."""
        for line in self.lines():
            event = _object(line)
            if isinstance(event.get("event"), str):
                yield event
            elif line.strip():
                yield {"event": "message", "text": line, "plain": True}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the new lines as JSON objects; what is none is passed over."""
        yield from filter(None, map(_object, self.lines()))


def _object(line: str) -> dict[str, Any]:
    """Return the JSON object of a line, an empty one for a line that is none."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}
