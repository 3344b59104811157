"""The arrays that pass between modules, by what they hold."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Float: TypeAlias = NDArray[np.float32]
"""Samples, magnitudes, picture values in 0..1."""
Levels: TypeAlias = NDArray[np.uint8]
"""Pictures as pixels, (n_mels, frames, channels), row 0 = lowest band."""
Vectors: TypeAlias = NDArray[np.float64]
"""Rows of embeddings, (n, dimensions)."""
Owner: TypeAlias = NDArray[np.intp]
"""The number of the clip that each row of `Vectors` belongs to, (n,)."""
