"""Runs a command in a process of its own that outlives the server, and writes down how it ended.

`python -m sdxl_mel.studio.child FOLDER COMMAND ...`; signals to the group reach the command, and not this process.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from sdxl_mel.files.atomic import write_json, write_text

EXIT, PROCESS = "exit.json", "process"
"""The files in the folder: how the command ended, and the number of the process."""


def main() -> None:
    """Run the command to its end."""
    folder, *words = sys.argv[1:]
    write_text(Path(folder) / PROCESS, f"{os.getpid()}\n")
    # Handlers, unlike SIG_IGN, are not handed on to the command.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    code = subprocess.call([sys.executable, "-P", "-m", "sdxl_mel", *words], close_fds=False)
    write_json(Path(folder) / EXIT, {"code": code})


if __name__ == "__main__":
    main()
