"""Names that settings offer and engines look up; free of torch, so that a help text need not wait for it."""

from typing import Literal

Method = Literal["best", "fast", "griffinlim"]
"""Ways to invert a picture; `sound.inversion.methods` has one function for each."""
