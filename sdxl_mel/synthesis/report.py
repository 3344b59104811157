"""What generate made: one entry a result, in the report and in manifest.json."""

from pydantic import BaseModel, ConfigDict

from sdxl_mel.config import StageReport


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
