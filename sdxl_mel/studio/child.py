"""Runs a command in a process of its own that outlives the server, and writes down how it ended.

`python -m sdxl_mel.studio.child EXIT.json COMMAND ...`; signals to the group reach the command, and not this process.
"""

import signal
import subprocess
import sys
from pathlib import Path

from sdxl_mel.files.atomic import write_json


def main() -> None:
    """Run the command to its end."""
    path, *words = sys.argv[1:]
    # Handlers, unlike SIG_IGN, are not handed on to the command.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    code = subprocess.call([sys.executable, "-P", "-m", "sdxl_mel", *words], close_fds=False)
    write_json(Path(path), {"code": code})


if __name__ == "__main__":
    main()
