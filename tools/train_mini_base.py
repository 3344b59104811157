"""Train the mini base from nothing, and judge it: renders, VAE, UNet with text encoders, oracle.

    python tools/train_mini_base.py --work DIR [--config tools/mini_base.toml]
    python tools/train_mini_base.py --work DIR --judge sdxl_mel/assets/mini

Run it from the root of the repository with the extra `demo` installed. It can be stopped and started again at any
time; a finished part is not repeated. DIR/mini is the diffusers folder, DIR/oracle.safetensors the oracle,
DIR/judged.md the figures. Better weights are copied to sdxl_mel/assets by hand, once they are judged better.
"""

import argparse
import os
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

ENVIRONMENT = {
    # Large tensors go back to the kernel at every operation otherwise: 42 % of the time.
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    # Parallel are the parts of a batch, not the operations.
    "OMP_NUM_THREADS": "1",
}


def main() -> None:
    """Run the recipe, or judge a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for renders, checkpoints and the result")
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("mini_base.toml"))
    parser.add_argument("--judge", type=Path, help="judge this folder instead of training one")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if any(name not in os.environ for name in ENVIRONMENT):
        os.execve(sys.executable, [sys.executable, *sys.argv], ENVIRONMENT | os.environ)  # read when a process starts
    recipe = tomllib.loads(arguments.config.read_text())
    from tools.mini_base.recipe import judge_folder, train_folder

    folder = arguments.judge or train_folder(arguments.work, recipe, arguments.threads)
    judge_folder(folder, arguments.work, recipe, arguments.threads)


if __name__ == "__main__":
    main()
