"""What the demo found out: its evaluations as numbers, and in words for who plays music."""

from dataclasses import dataclass
from pathlib import Path

from sdxl_mel.corpus.instruments import LEFT_OUT
from sdxl_mel.demo.plan import place
from sdxl_mel.evaluation.compare import difference_interval
from sdxl_mel.files.evaluation import Evaluation, Metric, read_evaluation
from sdxl_mel.metrics.intervals import Interval, proportion_interval

MODELS = ("base", "tuned")


@dataclass(frozen=True)
class Findings:
    """The four evaluations by (model, kind): models base and tuned, kinds new and known instruments."""

    evaluations: dict[tuple[str, str], Evaluation]

    @classmethod
    def read(cls, folder: Path) -> "Findings":
        """Read the evaluations of a finished demo."""
        pairs = [(model, kind) for model in MODELS for kind in ("new", "known")]
        return cls({(m, k): read_evaluation(place(folder, f"score_{m}_{k}")) for m, k in pairs})

    def metric(self, model: str, kind: str, name: str) -> Metric | None:
        """Return a metric, None where it could not be computed."""
        return self.evaluations[model, kind].metrics.get(name)

    def new_counts(self, model: str) -> dict[str, tuple[int, int]]:
        """Return in how many tiles each new instrument was found and in how many it was asked for."""
        metric = self.metric(model, "new", "instruments_each")
        counts = metric.details.by_instrument if metric else {}
        return {name: count for name, count in counts.items() if name in LEFT_OUT}

    def new_found(self, model: str) -> Interval | None:
        """Return the share of tiles asked for a new instrument in which the oracle hears it."""
        counts = self.new_counts(model).values()
        return proportion_interval(*map(sum, zip(*counts))) if counts else None

    def known_change(self) -> Interval | None:
        """Return by how much the share of known prompts whose instruments are all found has changed."""
        base, tuned = (self.metric(model, "known", "instruments_all") for model in MODELS)
        return difference_interval(base, tuned) if base and tuned else None

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the head lines as (what was measured, base, tuned)."""
        measured: dict[str, list[Metric | Interval | None]] = {
            "new instruments found": [self.new_found(model) for model in MODELS],
            "known prompts, all instruments found": [
                self.metric(model, "known", "instruments_all") for model in MODELS
            ],
            "FAD to held-out music with the new instruments": [self.metric(model, "new", "fad") for model in MODELS],
        }
        rows = [(what, shown(base), shown(tuned)) for what, (base, tuned) in measured.items()]
        changes = {
            "known prompts, prompt by prompt": self.known_change(),
            "FAD, pair by pair": self.metric("tuned", "new", "fad_change"),
        }
        return [*rows, *((what, "", shown(change)) for what, change in changes.items())]

    def lines(self) -> tuple[str, ...]:
        """Return the head lines."""
        return tuple(f"{what}: {' -> '.join(filter(None, values))}" for what, *values in self.rows())

    def sentences(self) -> list[str]:
        """Return what was learned, what became of the old, and how near the music is; less where less was measured."""
        return [each for each in (self._learned(), self._kept(), self._nearer()) if each]

    def _learned(self) -> str:
        before, after = (self.new_counts(model) for model in MODELS)
        if not after:
            return ""
        heard = [sum(found for found, _ in counts.values()) for counts in (before, after)]
        asked = sum(count for _, count in after.values())
        ranked = sorted(after, key=lambda name: after[name][0] / after[name][1])
        least, best = (f"the {name} ({after[name][0]} of {after[name][1]})" for name in (ranked[0], ranked[-1]))
        return (
            f"Asked for a new instrument, the base played it in {heard[0]} of {asked} clips, the LoRA in {heard[1]}; "
            f"it learned {best} best and {least} least."
        )

    def _kept(self) -> str:
        base, tuned = (self.metric(model, "known", "instruments_all") for model in MODELS)
        change = self.known_change()
        if base is None or tuned is None or change is None:
            return ""
        before, after = (round(metric.value * metric.n) for metric in (base, tuned))
        sure = change.high is not None and change.high < 0
        lost = (
            f"it {'has' if sure else 'may have'} forgotten {before - after}" if before > after else "none is forgotten"
        )
        return (
            f"Asked for what the base had learned before, the base played every instrument in {before} of {base.n} "
            f"clips, the LoRA in {after}: {lost}."
        )

    def _nearer(self) -> str:
        change = self.metric("tuned", "new", "fad_change")
        if change is None or change.low is None or change.high is None:
            return ""
        music = "its music with the new instruments is"
        if change.low <= 0 <= change.high:
            return f"Whether {music} nearer to real music than the base's cannot be told from these clips."
        return f"All in all, {music} {'nearer to' if change.high < 0 else 'farther from'} real music than the base's."


def shown(value: Metric | Interval | None) -> str:
    """Return a number with its interval."""
    if value is None:
        return "absent"
    bounds = f" ({value.low:.3f} to {value.high:.3f})" if value.low is not None and value.high is not None else ""
    return f"{value.value:.3f}{bounds}"
