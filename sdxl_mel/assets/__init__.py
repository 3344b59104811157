"""Files that ship with the package, and the base among them that is called `mini`."""

from pathlib import Path

MINI = Path(__file__).parent / "mini"


def base_path(name: str) -> Path:
    """Return where a base of this name would lie: the shipped one for `mini`, else the folder or file so called."""
    return MINI if name == "mini" else Path(name)
