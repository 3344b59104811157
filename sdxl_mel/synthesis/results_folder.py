"""The folder of results: pictures, sounds and plots, and the list of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.execution import Backend, map_jobs
from sdxl_mel.files.atomic import write_bytes
from sdxl_mel.files.audio import write_audio
from sdxl_mel.files.loops import loop_file, write_loop
from sdxl_mel.files.results import Entry, write_manifest
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
from sdxl_mel.record import Record
from sdxl_mel.report.spectrogram_figure import figure_bytes, spectrogram_figure
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import junction_score
from sdxl_mel.sound.stitching import scored_seams
from sdxl_mel.synthesis.best_of import Choice
from sdxl_mel.synthesis.growing_sound import GrowingSound
from sdxl_mel.synthesis.jobs import Job
from sdxl_mel.synthesis.layout import Layout
from sdxl_mel.synthesis.results import Result, candidate_seed
from sdxl_mel.synthesis.settings import Output
from sdxl_mel.synthesis.watch import current_watch


@dataclass
class ResultsFolder:
    """Writes the results of one command as they are finished; what an earlier run of it finished is found again.

    The record of a result holds the `settings` of the command, the job's own, those `found` in the models, and the
    hashes of all `inputs`.
    """

    output: Output
    spec: MelSpec
    layout: Layout
    settings: Mapping[str, JsonValue]
    found: Mapping[str, JsonValue]
    inputs: Mapping[str, str]
    earlier: Mapping[str, Entry] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    _growing: dict[str, GrowingSound] = field(default_factory=dict)

    def take_over(self, job: Job) -> bool:
        """Return whether a job was finished by an earlier run of this command; its result is then listed again.

        Raises InputError where another command's result lies, unless results may be overwritten.
        """
        levels, record = self._finished(job), self._record(job)
        if levels is None:
            return False
        self._write_beside(job.name, levels, record, again=False)
        self.entries[job.name] = self.earlier.get(job.name) or self._entry(job, Choice(0, (), None), levels)
        self._tell(job)
        return True

    def write(self, results: Sequence[Result]) -> None:
        """Write results, several at a time: most of it is making their sounds."""
        backend: Backend = "threads" if len(results) > 1 else "here"
        for _ in map_jobs(self._write, results, backend=backend):
            pass

    def hear(self, job: Job, levels: Levels, frames: int) -> None:
        """Make the sound of a picture of which the first `frames` are finished, as far as they go."""
        if self._sound_of(job.name):
            if job.name not in self._growing:
                self._growing[job.name] = self._growing_sound(job.name, levels)
            self._growing[job.name].make_until(frames)

    def _growing_sound(self, name: str, levels: Levels) -> GrowingSound:
        def on_block(samples: Float) -> None:
            current_watch().on_sound(self.output.path / name, samples, self.spec.sample_rate)

        return GrowingSound(levels, self.spec, self.output.method, self.layout.loop, on_block)

    def write_list(self, jobs: Sequence[Job]) -> list[Entry]:
        """Write the list of what is finished, in the order of the jobs, and return it."""
        finished = [self.entries[job.name] for job in jobs if job.name in self.entries]
        write_manifest(self.output.path, finished)
        return finished

    def leftovers(self) -> list[str]:
        """Return the files that an earlier command listed and this one did not make; with `overwrite` remove them."""
        made = {file for entry in self.entries.values() for file in self._files_of(entry, plot=self.output.plot)}
        earlier = {file for entry in self.earlier.values() for file in self._files_of(entry, plot=True)}
        found = [file for file in sorted(earlier - made) if (self.output.path / file).exists()]
        if self.output.overwrite:
            for file in found:
                (self.output.path / file).unlink()
        return found

    def _files_of(self, entry: Entry, *, plot: bool) -> set[str]:
        beside = {loop_file(Path(entry.sound)).name} if entry.loop and entry.sound else set()
        return entry.files | beside | ({_plot_of(Path(entry.picture).stem)} if plot else set())

    def _write(self, result: Result) -> None:
        job, levels, record = result.job, result.levels, self._record(result.job)
        write_spectrogram(self.output.path / f"{job.name}.png", Spectrogram(levels, self.spec, record))
        self._write_beside(job.name, levels, record, again=True)
        self.entries[job.name] = self._entry(job, result.choice, levels)
        self._tell(job)

    def _tell(self, job: Job) -> None:
        """Tell who watches of a result."""
        rate = self.spec.sample_rate / self.spec.hop_length
        seams = [(first + frames / 2) / rate for first, frames in self.layout.seams]
        current_watch().on_result(self.output.path, self.entries[job.name], seams)

    def _write_beside(self, name: str, levels: Levels, record: Record, *, again: bool) -> None:
        """Write the sound and the plot; only what is missing unless `again`."""
        sound, plot = self._sound_of(name), self.output.path / _plot_of(name)
        if sound and (again or not (self.output.path / sound).exists()):
            path, loop = self.output.path / sound, self.layout.loop
            samples = (self._growing.pop(name, None) or self._growing_sound(name, levels)).whole()
            write_audio(path, samples, self.spec.sample_rate, record=record, spec=self.spec, loop=loop)
            if loop:
                write_loop(path, levels, self.spec)
        if self.output.plot and (again or not plot.exists()):
            write_bytes(plot, figure_bytes(spectrogram_figure(levels, self.spec, self.layout.seams), plot))

    def _sound_of(self, name: str) -> str | None:
        return None if self.output.sound == "none" else f"{name}.{self.output.sound}"

    def _finished(self, job: Job) -> Levels | None:
        """Return the picture of a job if it is there and was made by this very command."""
        path = self.output.path / f"{job.name}.png"
        if not path.exists():
            return None
        try:
            found = read_spectrogram(path)
        except (FormatError, InputError):
            found = None
        if found is not None and found.record == self._record(job):
            return found.levels
        if self.output.overwrite:
            return None
        raise InputError(f"{path}: made by another command; choose another --out, or give --overwrite to replace it")

    def _record(self, job: Job) -> Record:
        own: dict[str, JsonValue] = {
            "prompt": job.prompt,
            "texts": [[each.seconds, each.text] for each in job.texts],
            "negative_prompt": job.negative,
            "share": job.share,
            "seed": job.seed,
        }
        return Record(stage="generate", settings={**self.settings, **own, **self.found}, inputs=dict(self.inputs))

    def _entry(self, job: Job, choice: Choice, levels: Levels) -> Entry:
        return Entry(
            picture=f"{job.name}.png",
            sound=self._sound_of(job.name),
            prompt=job.prompt,
            negative_prompt=job.negative,
            seed=job.seed,
            candidate_seed=candidate_seed(job.seed, choice.index),
            seconds=self.layout.seconds(self.spec),
            loop=self.layout.loop,
            seam_scores=tuple(seam.score for seam in scored_seams(levels, self.layout.seams, self.spec)),
            junction=junction_score(dequantise(levels)) if self.layout.loop else None,
            inconsistency=choice.inconsistency,
            alignment=choice.alignment or (),
        )


def _plot_of(name: str) -> str:
    return f"{name}-plot.svg"
