"""Which adapter tensor learns at which rate."""

from typing import Any

from sdxl_mel.models.lora.adapters import Adapters
from sdxl_mel.training.optimizers import FINDS_ITS_RATE
from sdxl_mel.training.settings import OptimizerSettings

ENCODER_SHARE = 0.5
"""Text encoders learn at half the UNet's rate unless told otherwise; guides agree on 0.1 to 0.5."""


def parameter_groups(adapters: Adapters, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Return optimizer groups: one per rate, with `up` matrices lora_plus times as fast."""
    same = settings.name in FINDS_ITS_RATE
    encoder = settings.rate * (1.0 if same else ENCODER_SHARE)
    rates = {
        "unet": settings.rate,
        "text_encoder": settings.text_encoder_rate or encoder,
        "text_encoder_2": settings.text_encoder_2_rate or encoder,
    }
    groups: dict[float, list[Any]] = {}
    for name, parameter in adapters.named_parameters():
        factor = settings.lora_plus if name.endswith(".up") else 1.0
        groups.setdefault(rates[name.partition(".")[0]] * factor, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]
