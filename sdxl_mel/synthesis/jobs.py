"""What is to be drawn: one job a result, each with its prompt, its seed and the words that did not fit."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sdxl_mel.captions.anchor import anchored
from sdxl_mel.captions.schedule import parse_schedule
from sdxl_mel.captions.tokens import MAX_TOKENS, TokenCounter
from sdxl_mel.captions.weights import plain
from sdxl_mel.files.prompts import PromptLine


@dataclass(frozen=True)
class TimedText:
    """A text and the second of the result at which it begins."""

    seconds: float
    text: str


@dataclass(frozen=True)
class Job:
    """One result: `texts` are its texts over time; with `travel` it moves evenly from the first to the second.

    `share` is how much a single tile takes of the second text, 0 to 1.
    """

    number: int
    prompt: str
    texts: tuple[TimedText, ...]
    negative: str
    seed: int
    travel: bool = False
    share: float = 0.0

    @property
    def name(self) -> str:
        """Return the stem of the result's files."""
        return f"{self.number:04}"

    @property
    def said(self) -> tuple[str, ...]:
        """Return every text that is read for it."""
        return (*(each.text for each in self.texts), self.negative)


@dataclass(frozen=True)
class Prompts:
    """The prompts of a command; a line's own number, seed and negative prompt win over these.

    `schedule` gives texts over time in place of a line's, `to` is a second text to travel to.
    """

    lines: Sequence[PromptLine]
    num: int = 1
    seed: int = 0
    negative: str = ""
    schedule: str | None = None
    to: str | None = None


@dataclass(frozen=True)
class Fitting:
    """Puts the anchor before a prompt, as before captions in training, and keeps `notes` of what is not read as it is.

    A prompt over the token limit is cut as captions are, or where it may be `long` read in chunks.
    """

    anchor: str
    counter: TokenCounter
    long: bool = False
    notes: dict[str, str] = field(default_factory=dict)

    def __call__(self, prompt: str) -> str:
        """Return the text that the text encoders get."""
        if self.long:
            text = anchored(prompt, self.anchor, self.counter, limit=sys.maxsize).text
            tokens = self.counter.count(plain(text))
            if tokens > MAX_TOKENS:
                self.notes[prompt] = f"prompt of {tokens} tokens: read in chunks of {MAX_TOKENS}"
            return text
        fitted = anchored(prompt, self.anchor, self.counter)
        if fitted.dropped:
            self.notes[prompt] = f"prompt over the token limit, cut: {fitted.dropped!r}"
        return fitted.text


def plan_jobs(prompts: Prompts, fit: Callable[[str], str], length_seconds: float, long: bool) -> list[Job]:
    """Return the jobs in order; the n-th result of a prompt has the seed of its line plus n.

    Single tiles that travel share the way among the results of a line, a `long` piece goes all of it.
    """
    jobs: list[Job] = []
    for line in prompts.lines:
        texts = _texts(prompts, line.prompt, fit, length_seconds)
        count = line.num or prompts.num
        for index in range(count):
            jobs.append(
                Job(
                    number=len(jobs) + 1,
                    prompt=line.prompt,
                    texts=texts,
                    negative=prompts.negative if line.negative_prompt is None else line.negative_prompt,
                    seed=(prompts.seed if line.seed is None else line.seed) + index,
                    travel=prompts.to is not None and long,
                    share=index / max(1, count - 1) if prompts.to is not None and not long else 0.0,
                )
            )
    return jobs


def _texts(prompts: Prompts, prompt: str, fit: Callable[[str], str], length_seconds: float) -> tuple[TimedText, ...]:
    if prompts.schedule is not None:
        sections = parse_schedule(prompts.schedule, length_seconds)
        return tuple(TimedText(section.seconds, fit(section.prompt)) for section in sections)
    second = () if prompts.to is None else (TimedText(length_seconds, fit(prompts.to)),)
    return (TimedText(0.0, fit(prompt)), *second)
