"""What a UNet predicts, and under which noise: a scheduler's config, and the marks that single files have instead.

ComfyUI, Forge and A1111 know a single file of v-prediction by an empty tensor `v_pred`, one of zero terminal SNR (arXiv
2305.08891) by an empty `ztsnr`; Stability's modelspec has `prediction_type`, "epsilon" or "v".
"""

from collections.abc import Collection, Mapping
from typing import Any

from sdxl_mel.diffusion.options import Prediction
from sdxl_mel.diffusion.samplers import ZERO_SNR, takes_zero_snr
from sdxl_mel.errors import FormatError, MissingError
from sdxl_mel.models.family import Config

V_MARK, ZERO_SNR_MARK = "v_pred", "ztsnr"
PREDICTION_KEY = "modelspec.prediction_type"
MODELSPEC: Mapping[Prediction, str] = {"epsilon": "epsilon", "v_prediction": "v"}
TAKES_ZERO_SNR = "EulerDiscreteScheduler"


def make_base_scheduler(config: Config, where: str) -> Any:
    """Return the scheduler of a config.

    Raises MissingError for one that the installed diffusers has not, FormatError for damaged numbers.
    """
    kind = _kind(config)
    if not hasattr(kind, "set_timesteps"):
        raise MissingError(
            f"{where}: scheduler {config.get('_class_name')!r} is not in the installed diffusers; update it"
        )
    try:
        return kind.from_config(dict(config))
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FormatError(f"{where}: no scheduler can be made of its config ({reason}); copy it again") from error


def marked_config(config: Config, names: Collection[str], metadata: Mapping[str, str]) -> Config:
    """Return the scheduler config of a single file: `config` as changed by the file's marks; see `marks_of`.

    Without an end to the signal the last timestep must be drawn, so steps are spaced trailing. Zero terminal SNR counts
    with v-prediction alone, as in ComfyUI: epsilon says nothing of an image at the last timestep.
    """
    if V_MARK in names or metadata.get(PREDICTION_KEY) in ("v_prediction", MODELSPEC["v_prediction"]):
        config = {**config, "prediction_type": "v_prediction"}
    if ZERO_SNR_MARK in names and prediction_of(config) == "v_prediction" and not config.get(ZERO_SNR):
        config = {**config, ZERO_SNR: True, "timestep_spacing": "trailing"}
        if not takes_zero_snr(_kind(config)):
            config["_class_name"] = TAKES_ZERO_SNR
    return config


def marks_of(config: Config) -> list[str]:
    """Return the names of the empty tensors that mark a single file with this scheduler; inverse of `marked_config`."""
    return [
        *([V_MARK] if config.get("prediction_type") == "v_prediction" else []),
        *([ZERO_SNR_MARK] if config.get(ZERO_SNR) else []),
    ]


def prediction_of(config: Config) -> Prediction:
    """Return what the UNet predicts."""
    return "v_prediction" if config.get("prediction_type") == "v_prediction" else "epsilon"


def _kind(config: Config) -> Any:
    # Imported here: who reads a scheduler's config or writes its marks needs none of its schedulers.
    import diffusers

    return getattr(diffusers, str(config.get("_class_name", "")), None)
