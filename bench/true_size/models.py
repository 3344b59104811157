"""Makes an SDXL of random weights, and opens a fused file with diffusers: both in a process of their own.

python -m bench.true_size.models base SIZE OUT CONFIGS, python -m bench.true_size.models open FILE CONFIGS
"""

import sys
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline

from bench.fuse import true_size_models, write_base, write_configs
from tests.tiny_models import write_tiny_sdxl


def make(size: str, out: Path, configs: Path) -> None:
    """Write a base, a single file at true size and a folder at the tiny one, and a folder of configs for diffusers."""
    if size == "tiny":
        write_tiny_sdxl(out)
        write_tiny_sdxl(configs)
        return
    models = true_size_models()
    write_configs(configs, models)
    write_base(out, models)


def open_single_file(path: Path, configs: Path) -> None:
    """Open a single file with diffusers, and say how many weights of which models it has."""
    pipeline = StableDiffusionXLPipeline.from_single_file(path, config=str(configs), torch_dtype=torch.float16)
    for name, model in pipeline.components.items():
        if hasattr(model, "parameters"):
            print(name, sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["base", size, out, configs]:
            make(size, Path(out), Path(configs))
        case ["open", path, configs]:
            open_single_file(Path(path), Path(configs))
        case words:
            sys.exit(f"found {words}; expected base SIZE OUT CONFIGS, or open FILE CONFIGS")
