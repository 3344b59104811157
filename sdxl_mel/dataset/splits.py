"""Which split a track belongs to: by artist where known, and with pairs of instruments held out of training."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from sdxl_mel.errors import InputError
from sdxl_mel.names import near_miss
from sdxl_mel.seeding import derive_seed

Pair = tuple[str, str]

SEEN, UNSEEN = "seen", "unseen"
LARGEST_SHARE_HELD_OUT = 0.25
"""Pairs whose artists have more of the tracks than this would leave too little to train on."""


@dataclass(frozen=True)
class Candidate:
    """What the choice of a split depends on; `split` and `group` are set where the source decides."""

    track: str
    artist: str
    vocal: bool
    instruments: tuple[str, ...]
    split: str = ""
    group: str = ""

    @property
    def unit(self) -> str:
        """Return what may not be torn apart: the artist, or the track where none is known."""
        return f"artist {self.artist}" if self.artist else f"track {self.track}"

    @property
    def pairs(self) -> set[Pair]:
        """Return every pair of its instruments, in alphabetical order."""
        return set(combinations(sorted(set(self.instruments)), 2))


@dataclass(frozen=True)
class Assignment:
    """The split of a track, the part of it that is judged by itself, or why it has none."""

    split: str
    group: str = ""
    left_out: str = ""


def assign(
    candidates: Sequence[Candidate], *, validation: float, test: float, held_out: Iterable[Pair], vocals: str, seed: int
) -> dict[str, Assignment]:
    """Return the split of every track; the same whatever other tracks there are, but for splits that would be empty.

    Vocal tracks go to `regularization`, which is trained on too; those of an artist who is kept for validation or
    test are left out. With `vocals` "drop" they go nowhere, with "keep" where instrumental ones go.
    """
    pairs = set(held_out)
    units = _units(candidates, validation, test, pairs, seed)
    if vocals == "regularization":
        instrumental = {candidate.unit for candidate in candidates if not candidate.vocal}
        units = {unit: split if unit in instrumental else "regularization" for unit, split in units.items()}
    return {candidate.track: _assigned(candidate, units[candidate.unit], pairs, vocals) for candidate in candidates}


def choose_pairs(candidates: Sequence[Candidate], wanted: Sequence[str], seed: int) -> tuple[Pair, ...]:
    """Return the pairs to hold out: those named ("violin+piano"), or a number of them chosen ("3").

    Chosen are pairs of instruments that training has in other pairs too, drawn by the seed among those that leave
    enough to train on. Raises InputError for an instrument that no track has.
    """
    counts = Counter(pair for candidate in candidates for pair in candidate.pairs)
    chosen: list[Pair] = []
    for text in wanted:
        if text.isdigit():
            chosen += _drawn(candidates, counts, int(text), set(chosen), seed)
        else:
            chosen.append(_named(text, counts))
    return tuple(dict.fromkeys(chosen))


def _units(
    candidates: Sequence[Candidate], validation: float, test: float, pairs: set[Pair], seed: int
) -> dict[str, str]:
    """Return the split of every artist or single track; of few, training gets one first, then test, then validation."""
    number = {candidate.unit: derive_seed(seed, "split", candidate.unit) / 2**63 for candidate in candidates}
    split = {unit: _by_number(value, validation, test) for unit, value in number.items()}
    trained = {candidate.unit for candidate in candidates if not candidate.vocal}
    if trained and "train" not in {split[unit] for unit in trained} | {candidate.split for candidate in candidates}:
        split[max(trained, key=lambda unit: number[unit])] = "train"
    for name, share in (("test", test), ("validation", validation)):
        spare = sorted(unit for unit in trained if split[unit] == "train")
        if share > 0 and len(spare) > 1 and not any(split[unit] == name for unit in trained):
            split[min(spare, key=lambda unit: number[unit])] = name
    for candidate in candidates:
        if candidate.pairs & pairs and not candidate.vocal:
            split[candidate.unit] = "test"
    return split


def _by_number(value: float, validation: float, test: float) -> str:
    if value < test:
        return "test"
    return "validation" if value < test + validation else "train"


def _assigned(candidate: Candidate, split: str, pairs: set[Pair], vocals: str) -> Assignment:
    if candidate.vocal and vocals == "drop":
        return Assignment("", left_out="vocals (--vocals drop)")
    if candidate.vocal and vocals == "regularization":
        wanted = candidate.split or split
        if wanted in ("validation", "test"):
            return Assignment("", left_out=f"vocals, and its artist is kept for {wanted}")
        return Assignment("regularization", candidate.group)
    if candidate.split:
        return Assignment(candidate.split, candidate.group)
    if split == "test" and pairs:
        return Assignment("test", UNSEEN if candidate.pairs & pairs else SEEN)
    return Assignment(split)


def _drawn(
    candidates: Sequence[Candidate], counts: Mapping[Pair, int], count: int, taken: set[Pair], seed: int
) -> list[Pair]:
    partners: defaultdict[str, set[str]] = defaultdict(set)
    for one, other in counts:
        partners[one].add(other)
        partners[other].add(one)
    limit = LARGEST_SHARE_HELD_OUT / max(count, 1) * len(candidates)
    fitting = [
        pair
        for pair in counts
        if pair not in taken
        and all(len(partners[name]) > count for name in pair)
        and _tracks_lost(candidates, pair) <= limit
    ]
    if len(fitting) < count:
        raise InputError(
            f"--hold-out-combinations {count}: only {len(fitting)} pairs of instruments can be held out here "
            "without holding out an instrument or a quarter of the tracks; ask for fewer or name them (violin+piano)"
        )
    return sorted(fitting, key=lambda pair: derive_seed(seed, "hold out", *pair))[:count]


def _tracks_lost(candidates: Sequence[Candidate], pair: Pair) -> int:
    units = {candidate.unit for candidate in candidates if pair in candidate.pairs}
    return sum(candidate.unit in units for candidate in candidates)


def _named(text: str, counts: Mapping[Pair, int]) -> Pair:
    names = sorted(part.strip().lower() for part in text.split("+"))
    known = sorted({name for pair in counts for name in pair})
    for name in names:
        if name not in known:
            raise InputError(
                f"--hold-out-combinations {text}: no track has {name!r}{near_miss(name, known)} beside another "
                f"instrument; found: {', '.join(known) or 'none'}"
            )
    if len(names) != 2:
        raise InputError(f"--hold-out-combinations {text}: expected a number or two instruments, such as violin+piano")
    return names[0], names[1]
