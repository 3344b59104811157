"""Names of metrics that settings offer; free of numpy and torch, so that a help text need not wait for them."""

from typing import Literal

EmbedderName = Literal["clap", "laion-clap", "musicnn-msd", "musicnn-mtt", "tag-score", "mel"]
DEFAULT_EMBEDDERS: tuple[EmbedderName, ...] = ("clap", "musicnn-msd", "mel", "tag-score")
"""The first that can be opened and is a space names the plain metrics."""
