"""Counts of a training step against real tensors; test_true_size.py counts SDXL's."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.train_memory import kept_and_counted, kept_bytes
from sdxl_mel.models.lora.adapters import attach
from sdxl_mel.training.costs import count_costs, empty_inputs
from tests.tiny_models import PROJECTION, WIDTH, tiny_unet


def _tiny(**changes):
    settings = {"batch": 2, "height": 8, "width": 8, "dtype": torch.float32}
    dtype = changes.get("dtype", torch.float32)
    unet = tiny_unet(slim=True).to(dtype)
    attach({"unet": unet}, rank=4, alpha=4)
    return count_costs(unet, **{**settings, **changes})


def _call(unet):
    conditions = {"text_embeds": torch.zeros(2, PROJECTION), "time_ids": torch.zeros(2, 6)}
    text = torch.zeros(2, 77, WIDTH + PROJECTION)
    return unet(torch.ones(2, 4, 8, 8), torch.zeros(2), text, added_cond_kwargs=conditions).sample


def test_counts_are_those_of_the_real_model():
    unet = tiny_unet(slim=True)
    base = sum(parameter.numel() for parameter in unet.parameters())
    adapters = attach({"unet": unet}, rank=4, alpha=4)
    costs = _tiny()
    assert costs.base_parameters == base
    assert costs.adapter_parameters == sum(parameter.numel() for parameter in adapters.parameters())
    with FlopCounterMode(display=False) as counter:
        loss = _call(unet).square().mean()
        forward = counter.get_total_flops()
        loss.backward()
    # torch's own count leaves out the attention of a CPU.
    for counted, own in ((costs.flops, counter.get_total_flops()), (costs.forward_flops, forward)):
        assert counted == pytest.approx(own, rel=0.2)
        assert counted > own


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_bytes_are_those_of_real_tensors(dtype):
    unet = tiny_unet(slim=True).to(dtype)
    attach({"unet": unet}, rank=4, alpha=4)
    kept = kept_bytes(unet, empty_inputs(unet.config, (2, 8, 8), dtype))
    assert _tiny(dtype=dtype).saved_bytes == pytest.approx(kept, rel=0.05)


def test_saved_bytes_are_those_of_real_tensors_at_true_width():
    kept, counted = kept_and_counted(level=2, height=8, width=16)
    assert counted == pytest.approx(kept, rel=0.05)


def test_more_samples_and_less_precision():
    one, four = _tiny(batch=1), _tiny(batch=4)
    assert four.flops == pytest.approx(4 * one.flops, rel=0.05)
    assert _tiny(dtype=torch.bfloat16).saved_bytes < 0.65 * _tiny().saved_bytes


def test_checkpointing_keeps_less_and_takes_the_way_forward_again():
    plain, checkpointed = _tiny(), _tiny(checkpointing=True)
    assert checkpointed.saved_bytes + checkpointed.transient_bytes < 0.5 * plain.saved_bytes
    assert checkpointed.forward_flops == plain.forward_flops
    assert checkpointed.flops == plain.flops + plain.forward_flops
    # A frozen layer has one product back, or none, for the one forward.
    assert plain.forward_flops > 0.4 * plain.flops
