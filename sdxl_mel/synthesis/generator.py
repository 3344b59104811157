"""From settings to finished results: plan, draw, choose, write."""

import math
from collections.abc import Sequence

from sdxl_mel.arrays import Levels
from sdxl_mel.captions.tokens import TokenCounter
from sdxl_mel.execution import piecewise
from sdxl_mel.progress import progress
from sdxl_mel.record import Record
from sdxl_mel.seeding import derive_seed
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import context_frames, junction_score, seam_scores
from sdxl_mel.synthesis.best_of import Choice, choose, open_judge
from sdxl_mel.synthesis.drawing import Drawer
from sdxl_mel.synthesis.init_audio import Init, read_init
from sdxl_mel.synthesis.jobs import Fitting, Job, plan_jobs, read_lines
from sdxl_mel.synthesis.layout import Layout, lay_out
from sdxl_mel.synthesis.pipeline import Models, open_models
from sdxl_mel.synthesis.results_folder import Folder, Report, Result
from sdxl_mel.synthesis.settings import Config

UNRECORDED = {"out", "prompts", "prompt", "num", "seed", "lora", "base", "vae", "init", "negative_prompt", "clap"} | {
    "format",
    "plot",
    "overwrite",
    "batch",
    "device",
    "offload",
    "slicing",
    "method",
    "dtype",
    "anchor",
    "clip_skip",
    "guidance",
}
"""Settings that do not change a picture, or that stand in its record in another form."""


def generate(config: Config) -> Report:
    """Draw every result that is not there yet; Ctrl-C keeps those that are finished."""
    lines = read_lines(config)
    folder = Folder(
        config.out, config.format, config.method, loop=config.loop, plot=config.plot, overwrite=config.overwrite
    )
    folder.check_writable()
    models = open_models(config)
    spec = models.spec
    layout = lay_out(config.seconds, config.loop, config.mode, config.overlap, spec)
    fit = Fitting(models.anchor, _counter(models))
    jobs = plan_jobs(config, lines, fit, layout.frames * spec.hop_length / spec.sample_rate, layout.long)
    init = read_init(config, spec)
    work = _Work(config, models, layout, folder, init)
    results = work.finish(jobs)
    return Report(folder=str(config.out), results=tuple(results), notes=tuple(fit.notes.values()))


def _counter(models: Models) -> TokenCounter:
    """Return the counter of the base's own tokenizer: what it does not read is what is cut."""
    tokenizer = models.base.reading_tokenizer()
    return TokenCounter(
        f"tokenizer of {models.base.name}",
        lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids),
    )


class _Work:
    """The jobs of one command on their way to results."""

    def __init__(self, config: Config, models: Models, layout: Layout, folder: Folder, init: Init | None) -> None:
        self.config, self.models, self.layout, self.folder, self.init = config, models, layout, folder, init
        # Opened first, because the record of a choice names who judged.
        self.judge = open_judge(config.clap) if config.best_of > 1 else None
        self.seconds = layout.frames * models.spec.hop_length / models.spec.sample_rate
        self.results: dict[int, Result] = {}

    def finish(self, jobs: Sequence[Job]) -> list[Result]:
        """Return the results of all jobs in order; the lists are written even when this is interrupted."""
        waiting = [job for job in jobs if not self._found(job)]
        try:
            if waiting:
                self._draw(waiting)
        finally:
            finished = [self.results[job.number] for job in jobs if job.number in self.results]
            self.folder.write_lists(finished)
        return finished

    def _draw(self, jobs: Sequence[Job]) -> None:
        config = self.config
        known = self.init.known(self.models) if self.init else None
        drawer = Drawer(config, self.models, self.layout, known)
        drawer.read_texts(jobs)
        draws = [(job, candidate) for job in jobs for candidate in range(config.best_of)]
        pictures: list[Levels] = []
        with progress(drawer.steps_for(len(draws)), "generate", "steps") as ticker:
            drawer.on_step = ticker.advance
            # A long piece fills the batch by itself, and is written before the next begins.
            at_once = 1 if self.layout.long else config.batch
            for first in range(0, len(draws), at_once):
                some = draws[first : first + at_once]
                seeds = [_candidate_seed(job.seed, candidate) for job, candidate in some]
                ready: list[tuple[Job, list[Levels]]] = []
                for (job, candidate), levels in zip(some, drawer.draw([job for job, _ in some], seeds)):
                    pictures.append(levels)
                    if candidate == config.best_of - 1:
                        ready.append((job, pictures))
                        pictures = []
                self._keep_all(ready)

    def _keep_all(self, ready: Sequence[tuple[Job, Sequence[Levels]]]) -> None:
        """Keep the results of a batch, several at a time: most of it is making their sounds."""
        if len(ready) < 2:
            for job, pictures in ready:
                self._keep(job, pictures)
            return
        with piecewise() as workers:
            for _ in (workers.map if workers else map)(self._keep, *zip(*ready)):
                pass

    def _keep(self, job: Job, pictures: Sequence[Levels]) -> None:
        spec = self.models.spec
        choice = choose(pictures, job.prompt, spec, self.judge) if len(pictures) > 1 else Choice(0, (), None)
        levels = pictures[choice.index]
        if self.init is not None:
            levels = self.init.restored(levels, spec)
        self.folder.write(job.name, levels, spec, self._record(job), self.layout.seams)
        self.results[job.number] = self._result(job, choice, levels)

    def _found(self, job: Job) -> bool:
        """Take over a result that an earlier run of this command finished."""
        record = self._record(job)
        levels = self.folder.finished(job.name, record)
        if levels is None:
            return False
        self.folder.write_beside(job.name, levels, self.models.spec, record, self.layout.seams, again=False)
        self.results[job.number] = self.folder.earlier.get(job.name) or self._result(job, Choice(0, (), None), levels)
        return True

    def _result(self, job: Job, choice: Choice, levels: Levels) -> Result:
        values, spec, seams = dequantise(levels), self.models.spec, self.layout.seams
        context = context_frames(spec.sample_rate / spec.hop_length)
        scores = seam_scores(values, [start for start, _ in seams], [frames for _, frames in seams], context)
        return Result(
            picture=f"{job.name}.png",
            sound=self.folder.sound_of(job.name),
            prompt=job.prompt,
            negative_prompt=job.negative,
            seed=job.seed,
            candidate_seed=_candidate_seed(job.seed, choice.index),
            seconds=self.seconds,
            loop=self.layout.loop,
            seam_scores=tuple(None if math.isnan(score) else score for score in scores),
            junction=junction_score(values) if self.layout.loop else None,
            inconsistency=choice.inconsistency,
            alignment=choice.alignment or (),
        )

    def _record(self, job: Job) -> Record:
        settings = self.config.model_dump(mode="json", exclude=UNRECORDED)
        settings |= {
            "prompt": job.prompt,
            "texts": [[part.seconds, part.text] for part in job.parts],
            "negative_prompt": job.negative,
            "share": job.share,
            "seed": job.seed,
            "frames": self.layout.frames,
            "anchor": self.models.anchor,
            "clip_skip": self.models.clip_skip,
            "guidance": self.models.guidance,
            "dtype": self.models.dtype,
        }
        inputs = dict(self.models.inputs)
        if self.init is not None:
            inputs["init"] = self.init.sha256
        if self.judge is not None:
            inputs[f"judge {self.judge.name}"] = self.judge.weights
        return Record(stage="generate", settings=settings, inputs=inputs)


def _candidate_seed(seed: int, candidate: int) -> int:
    """Return the seed of a candidate; the first is the result's own, so that best_of 1 changes nothing."""
    return seed if candidate == 0 else derive_seed(seed, "candidate", candidate)
