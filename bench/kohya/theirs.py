"""The step of kohya's SDXL LoRA trainer, by its own classes: `python -m bench.kohya.theirs CHECKOUT SETTINGS`.

It runs in the interpreter of the checkout. Latents and outputs of the text encoders are in memory, as its
`--cache_latents` and `--cache_text_encoder_outputs` have them; its data loader is left out in its favour.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator

from bench.default_dtype import default_dtype
from bench.kohya.measure import measure, tell

MIXED = {"bf16": "bf16", "fp32": "no"}
TOKENS, TEXTS, POOLED = 77, (768, 1280), 1280
"""What SDXL's text encoders give."""


def kohya_step(chosen: argparse.Namespace) -> tuple[Callable[[], None], torch.nn.Module]:
    """Return one step as `NetworkTrainer.train` takes it between two log lines, and the UNet that it trains."""
    trainer_module: Any = importlib.import_module("sdxl_train_network")
    network_module: Any = importlib.import_module("networks.lora")
    train_util: Any = importlib.import_module("library.train_util")
    args = trainer_module.setup_parser().parse_args(
        [
            *("--cache_latents", "--cache_text_encoder_outputs", "--network_train_unet_only", "--sdpa"),
            *("--mixed_precision", MIXED[chosen.precision], "--optimizer_type", "AdamW", "--learning_rate", "1e-4"),
        ]
    )
    trainer = trainer_module.SdxlNetworkTrainer()
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=args.mixed_precision)
    dtype = torch.bfloat16 if chosen.precision == "bf16" else torch.float32
    unet = random_unet(chosen.width, dtype).to(accelerator.device).requires_grad_(False)
    train_util.replace_unet_modules(unet, False, False, True)
    # A network asks for text encoders although it adapts none of their layers here.
    network = network_module.create_network(1.0, chosen.rank, chosen.rank, None, [torch.nn.Module()] * 2, unet)
    network.apply_to(None, unet, apply_text_encoder=False, apply_unet=True)
    groups, _ = network.prepare_optimizer_params(None, None, 1e-4)
    _, _, optimizer = train_util.get_optimizer(args, groups)
    unet, network, optimizer = accelerator.prepare(unet, network, optimizer)
    unet.eval()
    network.prepare_grad_etc(None, unet)
    network.on_epoch_start(None, unet)
    scheduler, batch = trainer.get_noise_scheduler(args, accelerator.device), random_batch(chosen, accelerator.device)

    def step() -> None:
        with accelerator.accumulate(network):
            loss = trainer.process_batch(
                batch,
                *([None, None], unet, network, None, scheduler, dtype, dtype, accelerator, args, None, None),
                train_text_encoder=False,
            )
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(network.get_trainable_params(), args.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss.detach().item()

    return step, unet


def random_unet(width: int, dtype: torch.dtype) -> Any:
    """Return its UNet with random weights; SDXL's is 320 wide."""
    module: Any = importlib.import_module("library.sdxl_original_unet")
    module.MODEL_CHANNELS, module.TIME_EMBED_DIM = width, 4 * width
    with default_dtype(dtype):
        return module.SdxlUNet2DConditionModel()


def random_batch(chosen: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return a batch as its collator makes one from caches."""
    count: int = chosen.batch
    height, width = chosen.pixels
    sizes = torch.tensor([[height, width]] * count, device=device)
    return {
        "latents": torch.randn(count, 4, height // 8, width // 8),
        "text_encoder_outputs_list": [
            *(torch.randn(count, TOKENS, text, device=device) for text in TEXTS),
            torch.randn(count, POOLED, device=device),
        ],
        "original_sizes_hw": sizes,
        "crop_top_lefts": torch.zeros_like(sizes),
        "target_sizes_hw": sizes,
        "loss_weights": torch.ones(count, device=device),
    }


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    settings = argparse.Namespace(**json.loads(sys.argv[2]))
    tell(measure(*kohya_step(settings), settings.steps))
