"""The numbers of finished runs: a small file each."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from bench.ablations.rows import Row, config_of
from sdxl_mel.files.atomic import write_json
from sdxl_mel.record import sha256_bytes

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Measured:
    """What a run came to: shares of tiles found, FAD, distance within a prompt, squared error, CPU seconds."""

    new_found: float
    known_found: float
    frechet: float
    diversity: float
    held_out: float
    seconds: float


Finished = Mapping[tuple[str, int], Measured]
"""Runs by the name of their row and their seed."""


def fingerprint(row: Row, seed: int) -> str:
    """Return a hash of the settings that decide a run."""
    settings = config_of(row, seed, Path(), Path()).recorded()
    return sha256_bytes(json.dumps([settings, row.clip_skip]).encode())[:16]


def write_result(row: Row, seed: int, measured: Measured, results: Path = RESULTS) -> None:
    """Write what a run came to."""
    content: JsonValue = {"settings": fingerprint(row, seed), "measured": asdict(measured)}
    write_json(_path(row, seed, results), content)


def read_result(row: Row, seed: int, results: Path = RESULTS) -> Measured | None:
    """Return what a run came to, None where it was not made, or with other settings."""
    path = _path(row, seed, results)
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Measured(**content["measured"]) if content["settings"] == fingerprint(row, seed) else None


def missing(rows: Iterable[Row], seeds: Sequence[int], results: Path = RESULTS) -> Iterator[tuple[Row, int]]:
    """Yield the runs that have no result yet, row by row."""
    for row in rows:
        yield from ((row, seed) for seed in seeds if read_result(row, seed, results) is None)


def finished(rows: Iterable[Row], results: Path = RESULTS) -> Finished:
    """Return all runs that were made with the settings of today."""
    found = {}
    for row in rows:
        for path in results.glob(f"{row.name}-*.json"):
            number = path.stem.removeprefix(f"{row.name}-")
            if number.isdigit() and (measured := read_result(row, int(number), results)):
                found[row.name, int(number)] = measured
    return found


def _path(row: Row, seed: int, results: Path) -> Path:
    return results / f"{row.name}-{seed}.json"
