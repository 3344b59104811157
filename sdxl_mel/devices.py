"""The devices that this machine has."""

import torch

from sdxl_mel.errors import InputError


def find_device(asked: str) -> str:
    """Return the device asked for, or for auto the fastest. Raises InputError for one that is not on this machine."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if asked == "auto":
        return "cpu" if found is None else found.type
    known = ["cpu", *([] if found is None else [found.type])]
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise InputError(f"--device {asked!r}: no device; this machine has {', '.join(known)}") from error
    last = 0 if device.type == "cpu" else torch.accelerator.device_count() - 1
    if device.type not in known or (device.index or 0) > last:
        raise InputError(f"--device {asked}: not on this machine; it has {', '.join(known)}")
    return asked
