"""Words for numbers, where and only where someone has calibrated them: CLAP `music_audioset`, clip level.

Grades are half-open ranges, [from, to). The bounds are those of the toolkit whose users coined them; its gaps are
filled.
"""

from dataclasses import dataclass
from math import inf

FAMILY = "music_audioset"
FEWEST_FOR_FAD = 50
FLOOR_MARGIN = 1.2

GRADES: dict[str, tuple[tuple[float, str], ...]] = {
    "clap_mean": ((0.20, "poor"), (0.30, "weak"), (0.40, "decent"), (0.50, "strong"), (inf, "very strong")),
    "diversity": ((0.05, "severe collapse"), (0.10, "low"), (0.18, "healthy"), (0.30, "high"), (inf, "very diverse")),
    "fad": (
        (0.30, "extremely close"),
        (0.40, "close"),
        (0.80, "good"),
        (1.50, "weak"),
        (2.00, "very weak"),
        (inf, "poor"),
    ),
}


@dataclass(frozen=True)
class Grade:
    """The word for a value, the words its interval spans, or the reason why there is none."""

    word: str | None
    span: tuple[str, ...] = ()
    why_none: str | None = None


def word_for(metric: str, value: float) -> str:
    """Return the word for a value of one of the metrics in GRADES."""
    return next(word for bound, word in GRADES[metric] if value < bound)


def grade(metric: str, family: str | None, value: float, low: float | None, high: float | None) -> Grade | None:
    """Return the grade of a metric, or None for a metric that has none."""
    if metric not in GRADES:
        return None
    if family != FAMILY:
        return Grade(None, why_none=f"grades are calibrated for CLAP {FAMILY} only")
    words = [word for _, word in GRADES[metric]]
    first = words.index(word_for(metric, value if low is None else low))
    last = words.index(word_for(metric, value if high is None else high))
    return Grade(word_for(metric, value), tuple(words[first : last + 1]))


def fad_grade(
    family: str | None, value: float, low: float | None, high: float | None, *, clips: int, floor: float | None
) -> Grade:
    """Return the grade of a FAD, suppressed where the sample is too small for one."""
    if family == FAMILY and clips < FEWEST_FOR_FAD:
        return Grade(None, why_none=f"inconclusive: {clips} clips, a FAD grade needs {FEWEST_FOR_FAD}")
    if family == FAMILY and floor is not None and value <= FLOOR_MARGIN * floor:
        return Grade(None, why_none=f"inconclusive: two halves of the reference differ by {floor:.3g} themselves")
    found = grade("fad", family, value, low, high)
    assert found is not None
    return found
