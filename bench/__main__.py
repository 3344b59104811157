"""`python -m bench NAME ...` prints tables; `python -m bench` runs all and writes bench/report.md."""

import importlib
import sys
from pathlib import Path

from bench.table import machine
from sdxl_mel.progress import muted

NAMES = (
    *("codec", "prepare", "cache", "train", "fuse", "generate", "edit", "stitch", "evaluate"),
    *("studio", "distill", "export", "browser"),
)
LONG = ("browser_oracle", "phase")
"""Minutes each: they run by name alone."""
REPORT = Path(__file__).parent / "report.md"


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all of them."""
    unknown = [name for name in names if name not in (*NAMES, *LONG)]
    if unknown:
        print(f"bench: unknown benchmark {unknown[0]!r}; known: {', '.join((*NAMES, *LONG))}", file=sys.stderr)
        return 2
    tables = []
    for name in names or NAMES:
        print(f"{name} ...", file=sys.stderr)
        with muted():
            table = importlib.import_module(f"bench.{name}").run()
        print(table.markdown(), flush=True)
        tables.append(table.markdown())
    if not names:
        head = f"# Benchmarks\n\n`python -m bench` on {machine()}.\n"
        REPORT.write_text("\n".join([head, *tables]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
