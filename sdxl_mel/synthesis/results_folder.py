"""The folder of results: pictures, sounds and plots, the list of them, and a playlist."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sdxl_mel.arrays import Levels
from sdxl_mel.config import StageReport
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.atomic import write_bytes, write_json, write_text
from sdxl_mel.files.audio import write_audio
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
from sdxl_mel.options import Method
from sdxl_mel.record import Record
from sdxl_mel.report.spectrogram_figure import figure_bytes, spectrogram_figure
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.melspec import MelSpec


class Result(BaseModel):
    """One finished result: its files, what was asked for, and what was measured."""

    model_config = ConfigDict(frozen=True)

    picture: str
    sound: str | None
    prompt: str
    negative_prompt: str
    seed: int
    seconds: float
    loop: bool
    candidate_seed: int
    seam_scores: tuple[float | None, ...] = ()
    junction: float | None = None
    inconsistency: tuple[float, ...] = ()
    alignment: tuple[float, ...] = ()


class Report(StageReport):
    """The results, and what was cut from prompts."""

    folder: str
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return a line a result."""
        lines = [f"{self.folder}: {len(self.results)} results, listed in manifest.json"]
        for result in self.results[:20]:
            files = result.picture + (f" + {result.sound}" if result.sound else "")
            lines.append(f"  {files}: {result.seconds:.2f} s, seed {result.seed}, {result.prompt}{_joins(result)}")
        if len(self.results) > 20:
            lines.append(f"  ... and {len(self.results) - 20} more")
        return "\n".join([*lines, *self.notes])


def _joins(result: Result) -> str:
    """Return how much the joins of a long piece stand out: about 0 for an ordinary moment, above 2 is heard."""
    known = [score for score in result.seam_scores if score is not None]
    parts = [f"seam z {sum(known) / len(known):+.2f}, worst {max(known):+.2f} of {len(known)} joins"] if known else []
    if result.junction is not None:
        parts.append(f"loop junction z {result.junction:+.2f}")
    return "".join(f"; {part}" for part in parts)


MANIFEST = "manifest.json"
PLAYLIST = "playlist.m3u8"


class Folder:
    """Writes results as they are finished; what an earlier run of the same command finished is found again."""

    def __init__(self, path: Path, suffix: str, method: Method, *, loop: bool, plot: bool, overwrite: bool) -> None:
        self.path, self.suffix, self.method = path, suffix, method
        self.loop, self.plot, self.overwrite = loop, plot, overwrite
        self.earlier = _earlier_results(path / MANIFEST)

    def check_writable(self) -> None:
        """Write the list once before the long work: a folder that cannot be written is then known at once."""
        self.write_lists(list(self.earlier.values()))

    def finished(self, name: str, record: Record) -> Levels | None:
        """Return the picture `name` if it is there and was made by this very command.

        Raises InputError when another command made it, unless results may be overwritten.
        """
        path = self.path / f"{name}.png"
        if not path.exists():
            return None
        try:
            found = read_spectrogram(path)
        except (FormatError, InputError):
            found = None
        if found is not None and found.record == record:
            return found.levels
        if self.overwrite:
            return None
        raise InputError(f"{path}: made by another command; choose another --out, or give --overwrite to replace it")

    def write(self, name: str, levels: Levels, spec: MelSpec, record: Record, seams: Sequence[tuple[int, int]]) -> None:
        """Write the picture, and what is to lie beside it."""
        write_spectrogram(self.path / f"{name}.png", Spectrogram(levels, spec, record))
        self.write_beside(name, levels, spec, record, seams, again=True)

    def write_beside(
        self,
        name: str,
        levels: Levels,
        spec: MelSpec,
        record: Record,
        seams: Sequence[tuple[int, int]],
        *,
        again: bool,
    ) -> None:
        """Write the sound and the plot; only what is missing unless `again`."""
        sound, plot = self.sound_of(name), self.path / f"{name}-plot.svg"
        if sound and (again or not (self.path / sound).exists()):
            samples = invert(levels, spec, method=self.method, loop=self.loop)
            write_audio(self.path / sound, samples, spec.sample_rate, record=record, spec=spec)
        if self.plot and (again or not plot.exists()):
            write_bytes(plot, figure_bytes(spectrogram_figure(levels, spec, seams), plot))

    def sound_of(self, name: str) -> str | None:
        """Return the name of a result's sound file, if there is to be one."""
        return None if self.suffix == "none" else f"{name}.{self.suffix}"

    def write_lists(self, results: Sequence[Result]) -> None:
        """Write manifest.json, and a playlist of the sounds for any player."""
        write_json(self.path / MANIFEST, {"results": [result.model_dump(mode="json") for result in results]})
        entries = [
            f"#EXTINF:{result.seconds:.3f},{result.prompt.replace(chr(10), ' ')}\n{result.sound}"
            for result in results
            if result.sound
        ]
        if entries:
            write_text(self.path / PLAYLIST, "\n".join(["#EXTM3U", *entries, ""]))


def _earlier_results(manifest: Path) -> dict[str, Result]:
    """Return the results of an earlier run by name; none where the list is missing or was made by another version."""
    try:
        listed = json.loads(manifest.read_text(encoding="utf-8"))["results"]
        results = [Result.model_validate(entry) for entry in listed]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {Path(result.picture).stem: result for result in results}
