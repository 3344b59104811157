#!/usr/bin/env python
"""`python stitch.py TILE.png|DIR ... --out LONG.png` is `sdxl-mel stitch`."""

import sys

from sdxl_mel.cli import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("stitch", sys.argv[1:], program="stitch.py"))
