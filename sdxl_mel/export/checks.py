"""Whether an export draws what the base draws: graphs against torch, stored weights against float32 ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdxl_mel.arrays import Float
from sdxl_mel.errors import MismatchError
from sdxl_mel.export.graphs import Part
from sdxl_mel.export.options import Weights
from sdxl_mel.export.runner import Session

MOST_GRAPH_ERROR = 1e-4
"""Of the largest output; float32 in another order of summation is off by about 1e-6."""
MOST_PICTURE_ERROR: Mapping[Weights, float] = {"fp32": 1e-4, "fp16": 2e-3, "int8": 2e-2}
"""Root mean square of the difference of pictures in 0..1. Ten steps instead of 25 make about 1e-2."""


def graph_error(part: Part, session: Session) -> float:
    """Return the largest difference to torch, relative to the largest output, at the inputs' size and at another.

    Raises MismatchError above `MOST_GRAPH_ERROR`.
    """
    worst = max(_difference(part, session, inputs) for inputs in (part.inputs, part.narrowed()))
    if not worst <= MOST_GRAPH_ERROR:
        raise MismatchError(
            f"the {part.name} as ONNX is off by {worst:.1e} of its largest output, at most {MOST_GRAPH_ERROR:.0e} is "
            "kept; try other versions of torch and onnx"
        )
    return worst


@torch.inference_mode()
def _difference(part: Part, session: Session, inputs: Mapping[str, Tensor]) -> float:
    found = session({name: each.numpy() for name, each in inputs.items()})
    wanted: Any = part.module(*inputs.values())
    tensors = wanted if isinstance(wanted, tuple) else (wanted,)
    return max(
        float(np.abs(have - want.numpy()).max() / want.abs().max().clamp_min(1e-6))
        for have, want in zip(found, tensors)
    )


def picture_error(stored: Float, exact: Float, weights: Weights) -> float:
    """Return the root mean square of the difference of two pictures in 0..1.

    Raises MismatchError above what `MOST_PICTURE_ERROR` says for these weights.
    """
    error = float(np.sqrt(np.mean((stored.astype(np.float64) - exact) ** 2)))
    if not error <= MOST_PICTURE_ERROR[weights]:
        raise MismatchError(
            f"--weights {weights}: a picture differs from that of fp32 by {error:.1e} (root mean square of 0..1), at "
            f"most {MOST_PICTURE_ERROR[weights]:.0e} is kept; take {'fp16' if weights == 'int8' else 'fp32'}"
        )
    return error
