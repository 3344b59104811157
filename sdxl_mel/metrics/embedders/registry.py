"""The embedders by name, and what to do for one that is not there."""

from dataclasses import dataclass, field
from pathlib import Path

from sdxl_mel.errors import InputError, MissingError
from sdxl_mel.metrics.embedders.base import AudioEmbedder
from sdxl_mel.names import near_miss

NAMES = ("clap", "laion-clap", "musicnn-msd", "musicnn-mtt", "tagbridge", "mel")


@dataclass(frozen=True)
class Sources:
    """Where models that are not in a package are: CLAP's folder or hub id, LAION's checkpoint for its own package."""

    clap: str | None = None
    laion_clap: Path | None = None
    device: str = "cpu"


@dataclass
class Opened:
    """The embedders that could be opened, in the order asked for, and why the others could not."""

    embedders: list[AudioEmbedder] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def open_embedders(names: tuple[str, ...], sources: Sources) -> Opened:
    """Open embedders by name; one whose package or weights are absent is noted, not raised. Raises InputError for an
    unknown name and for a model that is there and damaged."""
    opened = Opened()
    for name in dict.fromkeys(names):
        try:
            opened.embedders.append(open_embedder(name, sources))
        except MissingError as error:
            opened.absent[name] = str(error)
    return opened


def open_embedder(name: str, sources: Sources) -> AudioEmbedder:
    """Open one embedder. Raises MissingError that says how to get it, InputError for an unknown name."""
    match name:
        case "clap":
            from sdxl_mel.metrics.embedders.clap import HOW_TO_GET, ClapEmbedder

            if sources.clap is None:
                raise MissingError(f"no CLAP given; {HOW_TO_GET}")
            return ClapEmbedder(sources.clap, sources.device)
        case "laion-clap":
            from sdxl_mel.metrics.embedders.laion_clap import LaionClapEmbedder

            if sources.laion_clap is None:
                raise MissingError("no checkpoint given; --laion-clap FILE.pt, and pip install 'sdxl-mel[laion-clap]'")
            return LaionClapEmbedder(sources.laion_clap)
        case "musicnn-msd" | "musicnn-mtt":
            from sdxl_mel.metrics.embedders.musicnn import MusicnnEmbedder

            return MusicnnEmbedder("msd" if name.endswith("msd") else "mtt")
        case "tagbridge":
            from sdxl_mel.metrics.embedders.tag_score import TagBridge

            return TagBridge()
        case "mel":
            from sdxl_mel.metrics.embedders.mel_statistics import MelEmbedder

            return MelEmbedder()
        case _:
            raise InputError(f"unknown embedder {name!r}{near_miss(name, NAMES)}; known: {', '.join(NAMES)}")
