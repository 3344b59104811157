"""Embedders by name; one that cannot be opened is absent, with the reason and the way to get it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from sdxl_mel.errors import InputError, MissingError
from sdxl_mel.metrics.embedders.base import AudioEmbedder
from sdxl_mel.metrics.embedders.clap import HOW_TO_GET, ClapEmbedder
from sdxl_mel.metrics.embedders.laion_clap import LaionClapEmbedder
from sdxl_mel.metrics.embedders.mel_statistics import MelEmbedder
from sdxl_mel.metrics.embedders.musicnn import MusicnnEmbedder
from sdxl_mel.metrics.embedders.tag_score import TagScore
from sdxl_mel.metrics.options import EmbedderName
from sdxl_mel.names import near_miss


@dataclass(frozen=True)
class Sources:
    """Where models that are not in a package are: CLAP's folder or hub id, LAION's checkpoint for its own package."""

    clap: str | None = None
    laion_clap: Path | None = None
    device: str = "cpu"


def open_embedders(names: Iterable[str], sources: Sources) -> tuple[list[AudioEmbedder], dict[str, str]]:
    """Return the embedders that could be opened, in the order asked for, and why the others could not, by name.

    Raises InputError for an unknown name and for a model that is there and damaged.
    """
    opened: list[AudioEmbedder] = []
    absent: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            opened.append(open_embedder(name, sources))
        except MissingError as error:
            absent[name] = str(error)
    return opened, absent


def open_embedder(name: str, sources: Sources) -> AudioEmbedder:
    """Open one embedder. Raises MissingError that says how to get it, InputError for an unknown name."""
    match name:
        case "clap":
            if sources.clap is None:
                raise MissingError(f"no CLAP given; {HOW_TO_GET}")
            return ClapEmbedder(sources.clap, sources.device)
        case "laion-clap":
            if sources.laion_clap is None:
                raise MissingError("no checkpoint given; --laion-clap FILE.pt, and pip install 'sdxl-mel[laion-clap]'")
            return LaionClapEmbedder(sources.laion_clap)
        case "musicnn-msd":
            return MusicnnEmbedder("msd")
        case "musicnn-mtt":
            return MusicnnEmbedder("mtt")
        case "tag-score":
            return TagScore()
        case "mel":
            return MelEmbedder()
        case _:
            known = get_args(EmbedderName)
            raise InputError(f"unknown embedder {name!r}{near_miss(name, known)}; known: {', '.join(known)}")
