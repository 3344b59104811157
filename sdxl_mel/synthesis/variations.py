"""Variations on a page: one prompt drawn with every combination of seeds, guidances, strengths and LoRA scales."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from pydantic import JsonValue

from sdxl_mel.arrays import Vectors
from sdxl_mel.config import Skipped
from sdxl_mel.diffusion.samplers import Sampling
from sdxl_mel.errors import InputError, MissingError
from sdxl_mel.files.audio import read_audio
from sdxl_mel.files.results import Entry, read_manifest, write_manifest
from sdxl_mel.metrics.embedders.base import AudioEmbedder, clip_vectors, unit_rows
from sdxl_mel.metrics.embedders.registry import Sources, open_embedder
from sdxl_mel.models.lora.scaled import left_out_of
from sdxl_mel.record import sha256_file
from sdxl_mel.report.page import Page, Sound, player, sound_bytes, table
from sdxl_mel.sound.encoding import resample
from sdxl_mel.sound.melspec import LATENT_FACTOR
from sdxl_mel.synthesis.best_of import Choice
from sdxl_mel.synthesis.editing import Edit, Source, edit_source, open_source
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Job, Prompts, TimedText
from sdxl_mel.synthesis.layout import Layout, lay_out
from sdxl_mel.synthesis.regions import require_strength
from sdxl_mel.synthesis.results import Result, Step
from sdxl_mel.synthesis.results_folder import ResultsFolder
from sdxl_mel.synthesis.session import (
    Generated,
    found_settings,
    generate,
    progress_of_steps,
    settled,
    stated_settings,
)
from sdxl_mel.synthesis.settings import Asked, Length, Output

__all__ = ["Axes", "Cell", "Generator", "draw_variations", "generate_ab"]

PAGE = "variations.html"
AB_PAGE = "ab.html"


@dataclass(frozen=True)
class Axes:
    """What is varied: every combination is one cell. Empty axes are as the models or the command have it."""

    strengths: Sequence[float] = ()
    scales: Sequence[float] = ()
    guidances: Sequence[float] = ()
    seeds: Sequence[int] = (0,)

    def named(self) -> dict[str, Sequence[float]]:
        """Return the axes that are there, by the name of their setting."""
        axes = {"strength": self.strengths, "lora scale": self.scales, "guidance": self.guidances, "seed": self.seeds}
        return {name: values for name, values in axes.items() if values}


@dataclass(frozen=True)
class Cell:
    """One combination, by the names of the axes, and its result: what is listed of it and how far it is."""

    settings: Mapping[str, float]
    entry: Entry
    distance: float

    def words(self) -> str:
        """Return its settings for people."""
        return ", ".join(f"{name} {value:g}" for name, value in self.settings.items())


class Varied(NamedTuple):
    """The cells of a command in order, what is to be said of its settings, and what is not used."""

    cells: tuple[Cell, ...]
    notes: tuple[str, ...]
    left_out: tuple[Skipped, ...]


def draw_variations(
    open_generator: Callable[[], Generator],
    prompt: str,
    axes: Axes,
    output: Output,
    *,
    negative: str = "",
    source: Path | None = None,
    length: Length | None = None,
    asked: Asked | None = None,
    batch: int = 4,
    settings: Mapping[str, JsonValue],
) -> Varied:
    """Draw every cell that is not in the folder yet, and write the page; the same command continues.

    With a `source` sound or picture its variations by `strengths` are drawn, else new music of a `length`. Raises
    InputError for strengths without a source, scales without a LoRA, and values that stand twice.
    """
    _require_sensible(axes, source)
    earlier = read_manifest(output.path)
    generator = open_generator()
    if axes.scales and not generator.loras:
        raise InputError("--scales: there is no --lora to scale")
    spec, fit = generator.spec, generator.fitting(long=True)
    given = None if source is None else open_source(source, spec)
    layout = lay_out(length or Length(), spec) if given is None else _layout_of(given)
    sampling, notes = settled(generator, asked or Asked())
    inputs = {} if source is None else {"input": sha256_file(source)}
    combinations = [dict(zip(axes.named(), values)) for values in product(*axes.named().values())]
    jobs = [
        Job(number, prompt, (TimedText(0.0, fit(prompt)),), negative, int(cell.get("seed", 0)))
        for number, cell in enumerate(combinations, 1)
    ]
    entries: dict[str, Entry] = {}
    try:
        with progress_of_steps("vary") as on_step:
            # What stays the same between cells that follow each other is set once.
            for fixed, group in groupby(zip(combinations, jobs), key=lambda each: {**each[0], "seed": 0}):
                if "lora scale" in fixed:
                    generator.rescale(fixed["lora scale"])
                drawn = replace(sampling, guidance=fixed.get("guidance", sampling.guidance))
                strength: dict[str, JsonValue] = {} if given is None else {"strength": fixed["strength"]}
                folder = ResultsFolder(
                    output,
                    spec,
                    layout,
                    settings={**settings, **stated_settings(generator, drawn), **strength},
                    found={"frames": layout.frames, **found_settings(generator, drawn)},
                    inputs=generator.inputs | inputs,
                    earlier=earlier,
                    entries=entries,
                )
                waiting = [job for _, job in group if not folder.take_over(job)]
                results: Iterator[Result]
                if given is None:
                    results = generator.draw(waiting, drawn, layout, batch=batch, on_step=on_step)
                else:
                    vary = partial(_varied, generator, given, fixed["strength"], drawn, on_step=on_step)
                    results = map(vary, waiting)
                for result in results:
                    folder.write([result])
    finally:
        finished = [entries[job.name] for job in jobs if job.name in entries]
        write_manifest(output.path, finished)
    cells = _measured(output.path, combinations, finished)
    write_page(output.path, prompt, cells)
    return Varied(tuple(cells), notes, left_out_of(generator.loras))


def _require_sensible(axes: Axes, source: Path | None) -> None:
    if axes.strengths and source is None:
        raise InputError("--strengths: give --source, the sound that is varied")
    if source is not None and not axes.strengths:
        raise InputError("--source: give --strengths, how far to go from it, such as 0.3 0.6")
    for strength in axes.strengths:
        require_strength(strength, "--strengths")
    if min(axes.guidances, default=1.0) < 0:
        raise InputError(f"--guidances: found {min(axes.guidances):g}; 1 is none, more is stronger")
    for name, values in axes.named().items():
        if len(set(values)) < len(values):
            raise InputError(f"--{name}: a value stands twice in {' '.join(f'{value:g}' for value in values)}")


def _layout_of(source: Source) -> Layout:
    columns = -(-source.frames // LATENT_FACTOR)
    return Layout(source.frames, columns, max(columns, 1), (0,), False, "joint", "swap")


def _varied(
    generator: Generator,
    source: Source,
    strength: float,
    sampling: Sampling,
    job: Job,
    *,
    on_step: Callable[[Step], None],
) -> Result:
    what = Edit(job.prompt, strength, negative=job.negative)
    edited = edit_source(generator, source, what, sampling=sampling, seed=job.seed, on_step=on_step)
    return Result(job, edited.levels, generator.spec, job.seed, Choice(0, (), None))


def _measured(folder: Path, combinations: Sequence[Mapping[str, float]], entries: Sequence[Entry]) -> list[Cell]:
    """Return the cells with their distances to the first."""
    vectors = _vectors([folder / str(entry.sound) for entry in entries])
    return [Cell(*each) for each in zip(combinations, entries, np.maximum(1 - vectors @ vectors[0], 0).tolist())]


def _vectors(sounds: Sequence[Path]) -> Vectors:
    """Return a unit vector of each sound, (n, d), by the best embedder that is there."""
    try:
        embedder: AudioEmbedder = open_embedder("musicnn-msd", Sources())
    except MissingError:
        embedder = open_embedder("mel", Sources())
    read = (read_audio(path) for path in sounds)
    heard = (resample(samples.mean(axis=0, keepdims=True), rate, embedder.rate)[0] for samples, rate in read)
    return unit_rows(clip_vectors([embedder.embed_audio(clip) for clip in heard]))


def generate_ab(open_generator: Callable[[], Generator], prompts: Prompts, output: Output, **options: Any) -> Generated:
    """Draw every result with the LoRAs, in the folder `with`, and without them, in `without`, and write their page.

    `options` are those of `session.generate`. Each folder holds what a command of its own would have drawn.
    """
    generator = open_generator()
    folders = (output.path / "with", output.path / "without")
    tuned = generate(lambda: generator, prompts, replace(output, path=folders[0]), **options)
    with generator.without_loras():
        bare = generate(lambda: generator, prompts, replace(output, path=folders[1]), **options)
    pairs = list(zip(tuned.entries, bare.entries))
    sounds = [folder / str(entry.sound) for folder, entries in zip(folders, zip(*pairs)) for entry in entries]
    with_them, without = np.split(_vectors(sounds), 2)
    rows: list[list[object]] = [
        [
            f"{entry.prompt} (seed {entry.seed})",
            player(*(_sound(folder, each, folder.name) for folder, each in zip(folders, pair))),
            float(1 - one @ other),
        ]
        for (entry, _), pair, one, other in zip(pairs, pairs, with_them, without)
    ]
    page = Page(
        "With and without", "The same prompts and seeds, X switches; the distance is the cosine of an embedder."
    )
    page.section("All", table(["prompt", "with the LoRAs and without", "distance"], rows))
    page.write(output.path / AB_PAGE)
    mean = float(np.mean([row[-1] for row in rows]))
    return tuned._replace(notes=(*tuned.notes, f"{output.path / AB_PAGE}: mean distance to without {mean:.3f}"))


def write_page(folder: Path, prompt: str, cells: Sequence[Cell]) -> Path:
    """Write the page of all cells: a table for each pair of the two longest axes, sound and picture in every cell."""
    values = {name: list(dict.fromkeys(cell.settings[name] for cell in cells)) for name in cells[0].settings}
    *outer, down, across = ["", "", *sorted(values, key=lambda name: len(values[name]))][-max(2, len(values)) :]
    page = Page(f"Variations of {prompt!r}", "Distances are cosines of an embedder, from the first cell.")
    for fixed in product(*(values[name] for name in outer)):
        rows: list[list[object]] = []
        for row in values.get(down, [0.0]):
            wanted = dict(zip(outer, fixed)) | ({down: row} if down else {})
            found = [cell for cell in cells if wanted.items() <= cell.settings.items()]
            rows.append([f"{down} {row:g}" if down else "", *(_shown(folder, cell) for cell in found)])
        header = ["", *(f"{across} {value:g}" for value in values[across])]
        title = ", ".join(f"{name} {value:g}" for name, value in zip(outer, fixed)) or "All"
        page.section(title, table(header, rows))
    page.write(folder / PAGE)
    return folder / PAGE


def _shown(folder: Path, cell: Cell) -> Markup:
    return player(_sound(folder, cell.entry), caption=f"{cell.entry.picture}, distance {cell.distance:.3f}")


def _sound(folder: Path, entry: Entry, name: str = "") -> Sound:
    samples, rate = read_audio(folder / str(entry.sound))
    return Sound(sound_bytes(samples, rate), (folder / entry.picture).read_bytes(), name)
