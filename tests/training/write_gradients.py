"""Run by `accelerate launch`: trains one step as the settings in a JSON file say and writes the gradients it used."""

import json
import sys

import torch
from safetensors.torch import save_file

from sdxl_mel.stages import train
from sdxl_mel.training import loop


def main(settings: str, out: str) -> None:
    real = loop.update

    def recorded(optimizer, parameters, factor, clip):
        if torch.distributed.is_initialized() is False or torch.distributed.get_rank() == 0:
            gradients = {str(index): parameter.grad for index, parameter in enumerate(parameters)}
            save_file({name: each.clone() for name, each in gradients.items() if each is not None}, out)
        return real(optimizer, parameters, factor, clip)

    loop.update = recorded
    train.run(train.Config.model_validate(json.loads(settings)))


if __name__ == "__main__":
    main(*sys.argv[1:])
