"""Every clip of every set through every embedder, each sound decoded once and each result kept by content.

Clips are shared out among threads: torch's own threads would wait for each other in every short operation.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr

from sdxl_mel.arrays import Float
from sdxl_mel.config import Skipped
from sdxl_mel.errors import SdxlMelError
from sdxl_mel.evaluation.clips import Clip, Decoding, decode
from sdxl_mel.execution import map_jobs
from sdxl_mel.metrics.embedders.base import AudioEmbedder
from sdxl_mel.metrics.embedders.cache import EmbeddingCache
from sdxl_mel.metrics.signal_checks import FACTS, Fact, Facts, facts_of, from_row, identity, is_silent, to_row
from sdxl_mel.progress import progress

SAVE_EVERY_SECONDS = 60.0


@dataclass
class ClipSet:
    """The usable clips of one set, their facts and their window vectors by embedder, in one order; and the others."""

    clips: list[Clip] = field(default_factory=list)
    facts: list[Facts] = field(default_factory=list)
    windows: dict[str, list[Float]] = field(default_factory=dict)
    left_out: list[Skipped] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Return the names of the clips."""
        return [clip.name for clip in self.clips]


def embed_sets(
    sets: Mapping[str, Iterable[Clip]],
    embedders: Sequence[AudioEmbedder],
    decoding: Decoding,
    folder: Path,
    facts: Sequence[Fact] = FACTS,
) -> dict[str, ClipSet]:
    """Return the sets with everything known about each clip, kept in `folder`; clips that cannot be used are listed."""
    return _Embedding(embedders, decoding, folder, facts).embed(sets)


class _Embedding:
    """Embeds clips through the caches of one folder."""

    def __init__(
        self, embedders: Sequence[AudioEmbedder], decoding: Decoding, folder: Path, facts: Sequence[Fact]
    ) -> None:
        self._embedders, self._decoding, self._table = embedders, decoding, facts
        self._caches = {
            each.name: EmbeddingCache(
                folder, each.name, {"weights": each.weights, "rate": str(each.rate), "windows": each.windows}
            )
            for each in embedders
        }
        self._facts = EmbeddingCache(folder, "facts", identity(facts))

    def embed(self, sets: Mapping[str, Iterable[Clip]]) -> dict[str, ClipSet]:
        wanted = {name: list(clips) for name, clips in sets.items()}
        broken = self._compute([clip for clips in wanted.values() for clip in clips])
        return {name: self._collected(clips, broken) for name, clips in wanted.items()}

    def _compute(self, clips: Sequence[Clip]) -> dict[str, str]:
        """Decode and embed what the caches lack; returns why some sounds cannot be used, by key."""
        keys = ((self._decoding.key(clip), self._decoding.facts_key(clip), clip) for clip in clips)
        missing = {facts: (key, clip) for key, facts, clip in keys if not self._is_known(key, facts)}
        broken: dict[str, str] = {}
        saved = time.monotonic()
        try:
            with progress(len(missing), "embedding", "clips") as ticker:
                for (facts_key, (key, _)), made in zip(missing.items(), map_jobs(self._embed, missing.values())):
                    if isinstance(made, str):
                        broken[key] = made
                    else:
                        self._facts[facts_key] = to_row(made[0])
                        for name, windows in made[1].items():
                            self._caches[name][key] = windows
                    ticker.advance()
                    if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                        self._save()
                        saved = time.monotonic()
        finally:
            self._save()
        return broken

    def _embed(self, job: tuple[str, Clip]) -> tuple[Facts, dict[str, Float]] | str:
        """Return a clip's facts and the window vectors that the caches lack, or why its sound cannot be used."""
        key, clip = job
        try:
            signal = decode(clip, self._decoding)
        except SdxlMelError as error:
            return str(error).removeprefix(f"{clip.path}: ")
        facts = facts_of(signal, self._table)
        if is_silent(facts):
            return facts, {}
        at_rate: dict[int, Float] = {signal.rate: signal.mono()}
        lacking = [embedder for embedder in self._embedders if key not in self._caches[embedder.name]]
        windows = {each.name: each.embed_audio(resampled(at_rate, signal.rate, each.rate)) for each in lacking}
        known = np.array([value for value in facts.values() if value is not None])
        if not all(np.isfinite(each).all() for each in (known, *windows.values())):
            return "what is measured of it is not finite: its samples are far beyond full scale; export it again"
        return facts, windows

    def _known_facts(self, facts_key: str) -> Facts:
        return from_row(self._facts[facts_key], self._table)

    def _is_known(self, key: str, facts_key: str) -> bool:
        if facts_key not in self._facts:
            return False
        return is_silent(self._known_facts(facts_key)) or all(key in cache for cache in self._caches.values())

    def _collected(self, clips: Iterable[Clip], broken: Mapping[str, str]) -> ClipSet:
        result = ClipSet(windows={name: [] for name in self._caches})
        for clip in clips:
            key = self._decoding.key(clip)
            if key in broken:
                result.left_out.append(Skipped(what=clip.name, why=broken[key]))
                continue
            facts = self._known_facts(self._decoding.facts_key(clip))
            if is_silent(facts):
                result.left_out.append(Skipped(what=clip.name, why="silent: no sample above -60 dBFS"))
                continue
            result.clips.append(clip)
            result.facts.append(facts)
            for name, cache in self._caches.items():
                result.windows[name].append(cache[key])
        return result

    def _save(self) -> None:
        for cache in (*self._caches.values(), self._facts):
            cache.save()


def resampled(at_rate: dict[int, Float], rate: int, wanted: int) -> Float:
    """Return mono samples at another rate, kept in `at_rate` for the next embedder."""
    if wanted not in at_rate:
        at_rate[wanted] = np.ascontiguousarray(soxr.resample(at_rate[rate], rate, wanted, quality="HQ"))
    return at_rate[wanted]
