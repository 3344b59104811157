"""`sdxl-mel inspect`: what a file of ours is, and what made it."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import JsonValue

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport

EXAMPLES = """\
  sdxl-mel inspect tile.png
  sdxl-mel inspect lora.safetensors --json
  sdxl-mel inspect runs/mine"""

SHOWN_ITEMS = 6
SHOWN_CHARACTERS = 100


class Config(StageConfig):
    """Print the spec and the record of a picture, sound, dataset, cache, run, LoRA or model folder."""

    file: Annotated[Path, Show.POSITIONAL]
    """what to look at"""
    json_: bool = False
    """print everything as JSON"""


class Report(StageReport):
    """What was found."""

    content: dict[str, JsonValue]
    machine: bool

    def summary(self) -> str:
        """Return it as indented text, long lists shortened, or whole as JSON."""
        if self.machine:
            return json.dumps(self.content, indent=2, ensure_ascii=False)
        return "\n".join(_lines(self.content))


def run(config: Config) -> Report:
    """Describe one artefact."""
    from sdxl_mel.files.describe import description

    return Report(content=description(config.file), machine=config.json_)


def _lines(content: dict[str, JsonValue], indent: str = "") -> list[str]:
    lines = []
    for name, value in content.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
            lines.append(f"{indent}{name}: {len(value)} entries")
        else:
            lines.append(f"{indent}{name}: {_text(value)}")
    return lines


def _text(value: JsonValue) -> str:
    if isinstance(value, list):
        rest = f", ... {len(value)} in all" if len(value) > SHOWN_ITEMS else ""
        return ", ".join(map(_text, value[:SHOWN_ITEMS])) + rest
    if isinstance(value, str):
        return value if len(value) <= SHOWN_CHARACTERS else value[: SHOWN_CHARACTERS - 3] + "..."
    return json.dumps(value)
