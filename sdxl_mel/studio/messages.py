"""The lines between the server and the drawing process: one JSON object a line, in both directions.

To the process: {"do": "draw", "job", "stage", "settings", "folder", "blocks"},
{"do": "sound", "job", "picture", "sound"} and {"do": "stop", "job"}.
From it: {"event": NAME, "job", ...} where NAME is one of EVENTS; a job is over with "ended".
"""

import json
from collections.abc import Mapping
from typing import Any

EVENTS = ("ready", "step", "progress", "message", "opened", "block", "result", "ended")
LONGEST = 1 << 24
"""Bytes of a line: several previews of a long piece fit."""


def format_message(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line; `parse_message` is the inverse."""
    return json.dumps(message, ensure_ascii=False).encode() + b"\n"


def parse_message(line: bytes) -> dict[str, Any]:
    """Return the message of a line. Raises ValueError for a line that is none."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"not a message: {line[:80]!r}")
    return message
