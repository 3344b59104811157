"""One command of the engine: prompts in, a folder of results out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import NamedTuple

from pydantic import JsonValue

from sdxl_mel.config import Skipped
from sdxl_mel.diffusion.samplers import Sampling, Settled, format_timesteps
from sdxl_mel.files.results import Entry, read_manifest, write_manifest
from sdxl_mel.models.lora.scaled import left_out_of, notes_on
from sdxl_mel.progress import Ticker, progress
from sdxl_mel.synthesis.best_of import open_judge
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Prompts, plan_jobs
from sdxl_mel.synthesis.layout import lay_out
from sdxl_mel.synthesis.results import Result, Step
from sdxl_mel.synthesis.results_folder import ResultsFolder
from sdxl_mel.synthesis.settings import Asked, Length, Output
from sdxl_mel.synthesis.stack import Acting
from sdxl_mel.synthesis.watch import current_watch

__all__ = ["Generated", "Generator", "generate"]


class Generated(NamedTuple):
    """The results of a command in order, what is to be said of its prompts and its settings, and what is not used."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    left_out: tuple[Skipped, ...]


def generate(
    open_generator: Callable[[], Generator],
    prompts: Prompts,
    output: Output,
    *,
    asked: Asked | None = None,
    length: Length | None = None,
    best_of: int = 1,
    clap: str | None = None,
    batch: int = 4,
    settings: Mapping[str, JsonValue],
) -> Generated:
    """Draw every result that is not in the folder yet; an interruption keeps those that are finished.

    `settings` are the command's, for the record of every result.
    """
    earlier = read_manifest(output.path)
    generator = open_generator()
    sampling, notes = settled(generator, asked or Asked())
    spec, layout, fit = generator.spec, lay_out(length or Length(), generator.spec), generator.fitting(long=True)
    jobs = plan_jobs(prompts, fit, layout.seconds(spec), layout.long)
    # Opened first, because the record of a choice names who judged.
    judge = open_judge(clap) if best_of > 1 else None
    inputs = generator.inputs
    if judge is not None:
        inputs[f"judge {judge.name}"] = judge.weights
    folder = ResultsFolder(
        output,
        spec,
        layout,
        settings={**settings, **stated_settings(generator, sampling)},
        found={"frames": layout.frames, **found_settings(generator, sampling)},
        inputs=inputs,
        earlier=earlier,
    )
    waiting = [job for job in jobs if not folder.take_over(job)]
    # Written once before the long work, when nothing can be refused any more: a folder that cannot be written is known.
    write_manifest(output.path, list(earlier.values()))
    ready: list[Result] = []
    try:
        with progress_of_steps("generate") as on_step:
            for result in generator.draw(
                waiting,
                sampling,
                layout,
                best_of=best_of,
                judge=judge,
                batch=batch,
                on_step=on_step,
                on_frames=folder.hear,
            ):
                ready.append(result)
                if not result.more:
                    folder.write(ready)
                    ready = []
    finally:
        entries = folder.write_list(jobs)
    left = folder.leftovers()
    what = "removed" if output.overwrite else "not in the list"
    said = [f"left over from an earlier command, {what}: {', '.join(left)}"] if left else []
    return Generated(tuple(entries), (*fit.notes.values(), *notes, *said), left_out_of(generator.loras))


def settled(generator: Generator, asked: Asked) -> Settled:
    """Return how to draw: as asked, else as the models want it; and what is to be said of that and of the LoRAs."""
    found = generator.settle(asked.drawing, asked.preset)
    sampling = replace(found.sampling, rescale=asked.rescale, guidance_interval=asked.guidance_interval)
    return found._replace(sampling=sampling, notes=(*found.notes, *notes_on(generator.loras)))


def stated_settings(generator: Generator, sampling: Sampling) -> dict[str, JsonValue]:
    """Return settings that a command may state, as they are: the LoRAs' scales are one number for one, else a list."""
    scales: list[JsonValue] = [lora.scale for lora in generator.loras]
    drawn: dict[str, JsonValue] = {"sampler": sampling.sampler, "steps": sampling.steps}
    acting = [each for _, each in zip(generator.loras, generator.acting)]
    if any(each != Acting() for each in acting):
        drawn["lora_acting"] = [{"interval": list(each.interval), "layers": each.layers} for each in acting]
    return drawn | ({"lora_scale": scales if len(scales) > 1 else scales[0]} if scales else {})


def found_settings(generator: Generator, sampling: Sampling) -> dict[str, JsonValue]:
    """Return the settings that a record holds as the models decided them."""
    found: dict[str, JsonValue] = {
        "anchor": generator.trained.anchor,
        "clip_skip": generator.trained.clip_skip,
        "guidance": sampling.guidance,
        "dtype": generator.dtype,
    }
    if generator.refining is not None:
        found["refine_steps"] = generator.refining.steps
    return found | ({} if sampling.timesteps is None else {"timesteps": format_timesteps(sampling.timesteps)})


@contextmanager
def progress_of_steps(command: str) -> Iterator[Callable[[Step], None]]:
    """Yield what shows the steps of a call; it begins with the first, which says how many there are."""
    with ExitStack() as stack:
        tickers: list[Ticker] = []

        def on_step(step: Step) -> None:
            if not tickers:
                tickers.append(stack.enter_context(progress(step.total, command, "steps")))
            tickers[0].advance()
            current_watch().on_step(step)

        yield on_step
