"""The dtype that torch gives new tensors, for a while; nothing but torch is imported (see `bench.kohya.measure`)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let weights be made in a dtype: in fp32 first, SDXL's leave holes in a process's memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
