"""Run by `accelerate launch`: trains one step as the settings in a JSON file say and writes the gradients it used."""

import json
import sys

import torch
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sdxl_mel.stages import train
from sdxl_mel.training.tasks import TASKS


def main(settings: str, out: str) -> None:
    def write(optimizer, *_):
        if torch.distributed.is_initialized() is False or torch.distributed.get_rank() == 0:
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            gradients = {str(index): parameter.grad for index, parameter in enumerate(parameters)}
            save_file({name: each.contiguous().clone() for name, each in gradients.items() if each is not None}, out)

    hook = register_optimizer_step_pre_hook(write)
    try:
        given = json.loads(settings)
        train.run(TASKS[given.get("task", "lora")].settings.model_validate(given))
    finally:
        hook.remove()


if __name__ == "__main__":
    main(*sys.argv[1:])
