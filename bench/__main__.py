"""`python -m bench NAME ...` prints tables; `python -m bench` runs all and writes bench/report.md.

Those that take options are named alone: `python -m bench ablations --help`.
"""

import argparse
import importlib
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

from bench.table import Table, machine
from sdxl_mel.errors import SdxlMelError
from sdxl_mel.progress import muted

NAMES = (
    *("codec", "prepare", "cache", "train", "fuse", "generate", "edit", "stitch", "evaluate"),
    *("studio", "distill", "export", "browser"),
)
LONG = ("browser_oracle", "decoder", "phase", "ablations", "true-size", "kohya")
"""Minutes each, or hours: they run by name alone."""
REPORT = Path(__file__).parent / "report.md"


def main(words: list[str]) -> int:
    """Run the named benchmarks, or all of them; what stands behind one name from the first dash on are its options."""
    names = list(takewhile(lambda word: not word.startswith("-"), words))
    unknown = [name for name in names if name not in (*NAMES, *LONG)]
    if unknown:
        print(f"bench: unknown benchmark {unknown[0]!r}; known: {', '.join((*NAMES, *LONG))}", file=sys.stderr)
        return 2
    options = words[len(names) :]
    if options and len(names) != 1:
        print(f"bench: found {options[0]!r}; options belong to one benchmark, named before them", file=sys.stderr)
        return 2
    tables = []
    for name in names or NAMES:
        print(f"{name} ...", file=sys.stderr)
        try:
            table = run(name, options)
        except SdxlMelError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        print(table.markdown(), flush=True)
        tables.append(table.markdown())
    if not names:
        head = f"# Benchmarks\n\n`python -m bench` on {machine()}.\n"
        REPORT.write_text("\n".join([head, *tables]), encoding="utf-8")
    return 0


def run(name: str, options: list[str]) -> Table:
    """Run a benchmark with its options."""
    module: Any = importlib.import_module(f"bench.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=f"python -m bench {name}", description=module.__doc__.splitlines()[0])
    if hasattr(module, "add_options"):
        module.add_options(parser)
    chosen = vars(parser.parse_args(options))
    with muted():
        table: Table = module.run(**chosen)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
