"""Seconds of a training step by parts, and the most memory that it holds; for any trainer that runs on torch.

Nothing but torch is imported, because a trainer of others has an interpreter and versions of its own.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

PARTS = ("forward", "backward", "rest")


def measure(step: Callable[[], Any], unet: torch.nn.Module, steps: int) -> dict[str, float]:
    """Return the seconds of the quickest `step` by parts after one that warms up, and the peak in bytes.

    The peak is that of the GPU, without one of the process.
    Forward is the call of the UNet, backward that of the loss; rest is all else, from the batch to the optimizer.
    """
    forget_peak()
    seconds: list[dict[str, float]] = []
    with clocked(unet) as clock:
        for _ in range(steps + 1):
            clock.update(dict.fromkeys(PARTS, 0.0))
            started = now()
            step()
            seconds.append({**clock, "rest": now() - started - clock["forward"] - clock["backward"]})
    # What else the machine does only ever adds.
    return min(seconds[1:], key=total) | {"peak": float(peak())}


def total(found: Mapping[str, float]) -> float:
    """Return the seconds of all parts."""
    return sum(found[part] for part in PARTS)


@contextmanager
def clocked(unet: torch.nn.Module) -> Iterator[dict[str, float]]:
    """Yield a clock that adds up the seconds of the UNet's calls and of every backward pass."""
    clock = dict.fromkeys(PARTS, 0.0)
    begun: list[float] = []
    autograd: Any = torch.autograd
    backward = autograd.backward
    hooks = [
        unet.register_forward_pre_hook(lambda *_: begun.append(now())),
        unet.register_forward_hook(lambda *_: clock.update(forward=clock["forward"] + now() - begun.pop())),
    ]

    def timed(*words: Any, **named: Any) -> None:
        start = now()
        backward(*words, **named)
        clock["backward"] += now() - start

    autograd.backward = timed
    try:
        yield clock
    finally:
        autograd.backward = backward
        for hook in hooks:
            hook.remove()


def now() -> float:
    """Return the time when the device has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def forget_peak() -> None:
    """Let peaks be counted from now on (Linux: what 5 in clear_refs does, see proc(5))."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the most bytes that were held since then."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def tell(found: dict[str, float]) -> None:
    """Print what was measured as the last line."""
    print(json.dumps(found))
