"""Whether tiles of the demo corpus hold the instruments of their prompts, by the instrument oracle."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sdxl_mel.corpus.instruments import INSTRUMENTS
from sdxl_mel.errors import InputError
from sdxl_mel.evaluation.clips import Clip
from sdxl_mel.evaluation.embeddings import Metrics, metric_of
from sdxl_mel.files.dataset import is_dataset, read_dataset
from sdxl_mel.files.evaluation import Absent
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.metrics.alignment import mean_by_prompt
from sdxl_mel.metrics.intervals import share_interval
from sdxl_mel.metrics.oracle import Oracle
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.melspec import PRESETS

METHOD = "instrument oracle on the picture: statistics of the mel and a linear classifier"
Wanted = tuple[str, ...]


class _Tile(NamedTuple):
    """A picture, the prompt it was drawn from, and the instruments that are to be found in it."""

    levels: np.ndarray
    prompt: str
    wanted: Wanted


def named_instruments(prompt: str) -> Wanted:
    """Return the corpus's instruments that a prompt names, in its order; "pan flute" is not also a flute."""
    names = sorted(INSTRUMENTS, key=len, reverse=True)
    found = re.findall(rf"\b({'|'.join(map(re.escape, names))})\b", prompt.lower())
    return tuple(dict.fromkeys(found))


def instruments(
    clips: Sequence[Clip], prompts: Mapping[str, str], oracle: Oracle, seed: int, real: Sequence[tuple[Clip, str]] = ()
) -> tuple[Metrics, list[Absent]]:
    """Return the shares of clips with all their instruments, and of asked instruments that are there.

    `real` are reference clips with what plays in them: what the oracle finds there is the ceiling, what it finds of the
    prompts of other clips the chance level. Absent, with the reason, where no clip is a picture of the preset `mini`
    whose prompt names an instrument.
    """
    tiles = _judged((clip, prompts.get(clip.name, "")) for clip in clips)
    if not tiles:
        why = "no clip is a tile of the preset mini whose prompt names an instrument of the demo corpus"
        return {}, [Absent(metric="instruments_all", why=why)]
    pictures, wanted = np.stack([tile.levels for tile in tiles]), [tile.wanted for tile in tiles]
    found = oracle.found(pictures, wanted)
    order = numpy_generator(seed, "shuffled instruments").permutation(len(wanted))
    shuffled = oracle.found(pictures, [wanted[index] for index in order])
    groups = [", ".join(names) for names in wanted]
    whole = np.array([all(flags) for flags in found], dtype=np.float64)
    everyone = share_interval(whole, groups)
    flat = [(name, flag) for names, flags in zip(wanted, found) for name, flag in zip(names, flags)]
    one_each = share_interval([flag for _, flag in flat], [group for group, flags in zip(groups, found) for _ in flags])
    all_there = metric_of(
        replace(everyone, method=f"{METHOD}; {everyone.method}"),
        "share of clips in which every instrument of the prompt was found",
        n=len(tiles),
        better="higher",
        by_prompt=mean_by_prompt(whole, [tile.prompt for tile in tiles]),
        details={
            "shuffled": float(np.mean([all(flags) for flags in shuffled])),
            "ceiling": _ceiling(_judged(real), oracle),
        },
    )
    each_there = metric_of(
        replace(one_each, method=f"{METHOD}; {one_each.method}"),
        "share of the asked instruments that were found",
        n=len(flat),
        unit="instruments",
        better="higher",
        details={"by_instrument": _by_instrument(flat)},
    )
    return {"instruments_all": all_there, "instruments_each": each_there}, []


def reference_instruments(folder: Path, clips: Sequence[Clip]) -> list[tuple[Clip, str]]:
    """Return the clips of a prepared dataset with their instruments (its captions where none are known)."""
    if not is_dataset(folder):
        return []
    items = [item for split in read_dataset(folder).splits.values() for item in split]
    playing = {item.file: ", ".join(item.instruments) or item.captions[0] for item in items}
    return [(clip, playing.get(clip.name, "")) for clip in clips]


def _judged(clips: Iterable[tuple[Clip, str]]) -> list[_Tile]:
    """Return the tiles that the oracle can judge."""
    asked = ((_levels(clip), text, wanted) for clip, text in clips if (wanted := named_instruments(text)))
    return [_Tile(levels, text, wanted) for levels, text, wanted in asked if levels is not None]


def _ceiling(tiles: Sequence[_Tile], oracle: Oracle) -> dict[str, float] | None:
    """Return the share of real tiles in which everything is found, and their number."""
    if not tiles:
        return None
    found = oracle.found(np.stack([tile.levels for tile in tiles]), [tile.wanted for tile in tiles])
    interval = share_interval([all(flags) for flags in found])
    return {"value": interval.value, "n": len(tiles)}


def _levels(clip: Clip) -> "np.ndarray | None":
    path = clip.path.with_suffix(".png")
    if not path.exists():
        return None
    try:
        picture = read_spectrogram(path)
    except InputError:
        return None  # A picture beside a sound need not be one of ours.
    if picture.spec != PRESETS["mini"] or picture.levels.shape[1] != picture.spec.width:
        return None
    return np.rint(picture.levels.mean(-1)).astype(np.uint8)


def _by_instrument(flat: Sequence[tuple[str, bool]]) -> dict[str, tuple[int, int]]:
    asked, found = Counter(name for name, _ in flat), Counter(name for name, flag in flat if flag)
    return {name: (found[name], count) for name, count in asked.items()}
