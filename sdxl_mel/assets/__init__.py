"""Files that ship with the package: the base called `mini`, public configs by family, and CLIP's merges."""

import re
from pathlib import Path

ASSETS = Path(__file__).parent
MINI = ASSETS / "mini"
CLIP_MERGES = ASSETS / "bpe_simple_vocab_16e6.txt.gz"
STEP_ADAPTER = "step_adapter.safetensors"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".json", ".toml", ".gguf", ".sft")


def base_path(name: str) -> Path:
    """Return where a base of this name would lie: the shipped one for `mini`, else the folder or file so called."""
    return MINI if name == "mini" else Path(name)


def step_adapter(base: str) -> Path | None:
    """Return the step adapter that a base's folder carries, a LoRA for drawing in few steps, or None."""
    path = base_path(base) / STEP_ADAPTER
    return path if path.is_file() else None


def may_be_hub_id(name: str) -> bool:
    """Return whether a name that is no folder or file here can be one of the hub (owner/name).

    It cannot with the ending of a file, nor where its first half is a folder here: then a path is mistyped.
    """
    return bool(HUB_ID.fullmatch(name)) and Path(name).suffix.lower() not in FILES and not Path(name).parent.is_dir()
