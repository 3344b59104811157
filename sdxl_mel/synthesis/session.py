"""One command of the engine: prompts in, a folder of results out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import NamedTuple

from pydantic import JsonValue

from sdxl_mel.diffusion.samplers import Drawing, SamplerPreset, Sampling, format_timesteps
from sdxl_mel.progress import Ticker, progress
from sdxl_mel.synthesis.best_of import open_judge
from sdxl_mel.synthesis.generator import Generator, Result, Step
from sdxl_mel.synthesis.init_audio import read_init
from sdxl_mel.synthesis.jobs import Prompts, plan_jobs
from sdxl_mel.synthesis.layout import Layout, lay_out
from sdxl_mel.synthesis.manifest import Entry, read_manifest, write_manifest
from sdxl_mel.synthesis.results_folder import ResultsFolder
from sdxl_mel.synthesis.settings import InitFile, Length, Output
from sdxl_mel.synthesis.watch import current_watch

__all__ = ["Generated", "Generator", "generate"]


class Generated(NamedTuple):
    """The results of a command in order, and what is to be said of its prompts and its settings."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]


def generate(
    open_generator: Callable[[], Generator],
    prompts: Prompts,
    output: Output,
    *,
    drawing: Drawing | None = None,
    preset: SamplerPreset | None = None,
    rescale: float = 0.0,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    length: Length | None = None,
    init: InitFile | None = None,
    best_of: int = 1,
    clap: str | None = None,
    batch: int = 4,
    settings: Mapping[str, JsonValue],
) -> Generated:
    """Draw every result that is not in the folder yet; an interruption keeps those that are finished.

    `settings` are the command's, for the record of every result.
    """
    earlier = read_manifest(output.path)
    # Written once before the long work: a folder that cannot be written is then known at once.
    write_manifest(output.path, list(earlier.values()))
    generator = open_generator()
    settled = generator.settle(drawing, preset)
    sampling = replace(settled.sampling, rescale=rescale, guidance_interval=guidance_interval)
    spec, layout, fit = generator.spec, lay_out(length or Length(), generator.spec), generator.fitting()
    jobs = plan_jobs(prompts, fit, layout.seconds(spec), layout.long)
    start = None if init is None else read_init(init, spec)
    # Opened first, because the record of a choice names who judged.
    judge = open_judge(clap) if best_of > 1 else None
    inputs = generator.inputs
    if start is not None:
        inputs["init"] = start.sha256
    if judge is not None:
        inputs[f"judge {judge.name}"] = judge.weights
    folder = ResultsFolder(
        output,
        spec,
        layout,
        settings={**settings, "sampler": sampling.sampler, "steps": sampling.steps, **_scales(generator)},
        found=_found(generator, sampling, layout),
        inputs=inputs,
        earlier=earlier,
    )
    waiting = [job for job in jobs if not folder.take_over(job)]
    ready: list[Result] = []
    try:
        with _progress() as on_step:
            for result in generator.draw(
                waiting, sampling, layout, init=start, best_of=best_of, judge=judge, batch=batch, on_step=on_step
            ):
                ready.append(result)
                if not result.more:
                    folder.write(ready)
                    ready = []
    finally:
        entries = folder.write_list(jobs)
    return Generated(tuple(entries), (*fit.notes.values(), *settled.notes))


def _scales(generator: Generator) -> dict[str, JsonValue]:
    """Return how strongly the LoRAs act: one number for one, a list for several."""
    scales: list[JsonValue] = [lora.scale for lora in generator.loras]
    return {"lora_scale": scales if len(scales) > 1 else scales[0]} if scales else {}


def _found(generator: Generator, sampling: Sampling, layout: Layout) -> dict[str, JsonValue]:
    """Return the settings that a record holds as the models decided them."""
    found: dict[str, JsonValue] = {
        "frames": layout.frames,
        "anchor": generator.trained.anchor,
        "clip_skip": generator.trained.clip_skip,
        "guidance": sampling.guidance,
        "dtype": generator.dtype,
    }
    return found | ({} if sampling.timesteps is None else {"timesteps": format_timesteps(sampling.timesteps)})


@contextmanager
def _progress() -> Iterator[Callable[[Step], None]]:
    """Yield what shows the steps of a call; it begins with the first, which says how many there are."""
    with ExitStack() as stack:
        tickers: list[Ticker] = []

        def on_step(step: Step) -> None:
            if not tickers:
                tickers.append(stack.enter_context(progress(step.total, "generate", "steps")))
            tickers[0].advance()
            current_watch().on_step(step)

        yield on_step
