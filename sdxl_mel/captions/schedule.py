"""What a long piece says when: `0:00 solo piano | 0:30 drums enter | 1:00 strings`."""

import re
from dataclasses import dataclass

from sdxl_mel.durations import seconds_of
from sdxl_mel.errors import InputError


@dataclass(frozen=True)
class Section:
    """A prompt and the second at which it begins."""

    seconds: float
    prompt: str


def parse_schedule(text: str, length_seconds: float) -> list[Section]:
    """Return the sections of a schedule in order; the first begins the piece.

    Raises InputError for a section without a moment or a prompt, out of order, or beyond the end of the piece.
    """
    sections = [_section(part.strip()) for part in text.split("|")]
    for earlier, later in zip(sections, sections[1:]):
        if later.seconds <= earlier.seconds:
            raise InputError(f"--schedule: {later.seconds:g} s comes after {earlier.seconds:g} s; put them in order")
    if sections[0].seconds != 0:
        raise InputError(f"--schedule: begins at {sections[0].seconds:g} s; begin at 0:00")
    if sections[-1].seconds >= length_seconds:
        raise InputError(
            f"--schedule: a section begins at {sections[-1].seconds:g} s, the piece ends at {length_seconds:g} s; "
            "give more --seconds"
        )
    return sections


def _section(part: str) -> Section:
    match = re.fullmatch(r"(\d[\d:.]*)\s+(\S.*)", part)
    if match is None:
        raise InputError(f"--schedule: found {part!r}; write each section as `0:30 the prompt`, separated by |")
    return Section(seconds_of(match[1], "--schedule"), match[2])
