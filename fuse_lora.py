"""Fuse LoRAs into an SDXL: the door to `sdxl-mel fuse`."""

import sys

from sdxl_mel.cli import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("fuse", sys.argv[1:], program="fuse_lora.py"))
