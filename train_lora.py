"""Train a LoRA: `accelerate launch train_lora.py --help`."""

import sys

from sdxl_mel.cli import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("train", sys.argv[1:], program="train_lora.py"))
