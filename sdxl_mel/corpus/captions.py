"""Captions of a rendered track, true by construction: every word was an instruction to the renderer."""

from sdxl_mel.corpus.scores import Piece

TEMPI: dict[str, tuple[float, float]] = {"slow": (56.0, 76.0), "moderate": (88.0, 108.0), "fast": (124.0, 156.0)}
"""Quarter notes a minute of each tempo word."""


def captions_of(piece: Piece, instruments: tuple[str, ...], tempo: str) -> tuple[str, ...]:
    """Return the captions of a track: the full list of tags first, then a sentence, then the instruments alone."""
    style, who = style_of(piece), _who(instruments)
    tags = ["instrumental", who, tempo, f"{piece.mode} key", style]
    if len(instruments) == 2:
        tags.append(_roles(piece, instruments))
    return ", ".join(tags), _sentence(piece, instruments, tempo), f"instrumental, {who}"


def style_of(piece: Piece) -> str:
    """Return the words for the style: "baroque chorale", "folk reel", "folk tune"."""
    return "baroque chorale" if piece.style == "chorale" else f"folk {piece.rhythm}"


def _who(instruments: tuple[str, ...]) -> str:
    return f"solo {instruments[0]}" if len(instruments) == 1 else " and ".join(instruments)


def _roles(piece: Piece, instruments: tuple[str, ...]) -> str:
    first, second = instruments
    if piece.style == "chorale":
        return f"{first} melody with {second} harmony"
    return f"{first} and {second} playing the melody together"


def _sentence(piece: Piece, instruments: tuple[str, ...], tempo: str) -> str:
    start = f"a {tempo} {style_of(piece)} in a {piece.mode} key"
    if len(instruments) == 1:
        return f"{start} played by solo {instruments[0]}"
    if piece.style == "chorale":
        return f"{start}, melody on {instruments[0]} over {instruments[1]}"
    return f"{start} played by {instruments[0]} and {instruments[1]}"
