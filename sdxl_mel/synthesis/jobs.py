"""What is to be drawn: one job a result, each with its prompt, its seed and the words that did not fit."""

from collections.abc import Callable
from dataclasses import dataclass

from sdxl_mel.captions.anchor import anchored
from sdxl_mel.captions.schedule import parse_schedule
from sdxl_mel.captions.tokens import TokenCounter
from sdxl_mel.files.prompts import PromptLine, read_prompts
from sdxl_mel.synthesis.settings import Config

Fit = Callable[[str], str]
"""Puts the anchor before a prompt and leaves away what the text encoders cannot read."""


@dataclass(frozen=True)
class Part:
    """A text and the second of the result at which it begins."""

    seconds: float
    text: str


@dataclass(frozen=True)
class Job:
    """One result: `parts` are its texts over time; with `travel` it moves evenly from the first to the second.

    `share` is how much a single tile takes of the second text, 0 to 1.
    """

    number: int
    prompt: str
    parts: tuple[Part, ...]
    negative: str
    seed: int
    travel: bool = False
    share: float = 0.0

    @property
    def name(self) -> str:
        """Return the stem of the result's files."""
        return f"{self.number:04}"


class Fitting:
    """Fits prompts to the text encoders and keeps `notes` of what was cut."""

    def __init__(self, anchor: str, counter: TokenCounter) -> None:
        self.anchor, self.counter = anchor, counter
        self.notes: dict[str, str] = {}

    def __call__(self, prompt: str) -> str:
        """Return the prompt with its anchor, as captions are in training."""
        fitted = anchored(prompt, self.anchor, self.counter)
        if fitted.dropped:
            self.notes[prompt] = f"prompt over the token limit, cut: {fitted.dropped!r}"
        return fitted.text


def read_lines(config: Config) -> list[PromptLine]:
    """Return the prompts of the command: of its file, its flag or its schedule."""
    if config.prompts is not None:
        return read_prompts(config.prompts)
    return [PromptLine(prompt=config.prompt or config.schedule or "")]


def plan_jobs(config: Config, lines: list[PromptLine], fit: Fit, length_seconds: float, long: bool) -> list[Job]:
    """Return the jobs of the command in order; the n-th result of a prompt has the seed of its line plus n."""
    jobs: list[Job] = []
    for line in lines:
        parts = _parts(config, line.prompt, fit, length_seconds)
        count = line.num or config.num
        for index in range(count):
            jobs.append(
                Job(
                    number=len(jobs) + 1,
                    prompt=line.prompt,
                    parts=parts,
                    negative=config.negative_prompt if line.negative_prompt is None else line.negative_prompt,
                    seed=(config.seed if line.seed is None else line.seed) + index,
                    travel=config.prompt_to is not None and long,
                    share=index / max(1, count - 1) if config.prompt_to is not None and not long else 0.0,
                )
            )
    return jobs


def _parts(config: Config, prompt: str, fit: Fit, length_seconds: float) -> tuple[Part, ...]:
    if config.schedule is not None:
        sections = parse_schedule(config.schedule, length_seconds)
        return tuple(Part(section.seconds, fit(section.prompt)) for section in sections)
    second = () if config.prompt_to is None else (Part(length_seconds, fit(config.prompt_to)),)
    return (Part(0.0, fit(prompt)), *second)
