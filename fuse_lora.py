#!/usr/bin/env python
"""`python fuse_lora.py --base BASE --lora FILE --out DIR|FILE.safetensors` is `sdxl-mel fuse`."""

import sys

from sdxl_mel.cli import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("fuse", sys.argv[1:], program="fuse_lora.py"))
