"""What the demo found: base against tuned, on the new instruments and on those the base knows."""

from dataclasses import dataclass
from pathlib import Path

from sdxl_mel.corpus.instruments import LEFT_OUT
from sdxl_mel.demo.plan import place
from sdxl_mel.files.evaluation import Evaluation, Metric, read_evaluation
from sdxl_mel.metrics.intervals import Interval, proportion_interval


@dataclass(frozen=True)
class Findings:
    """The four evaluations by (model, kind): models base and tuned, kinds new and known."""

    evaluations: dict[tuple[str, str], Evaluation]

    def metric(self, model: str, kind: str, name: str) -> Metric | None:
        """Return a metric, None where it could not be computed."""
        return self.evaluations[model, kind].metrics.get(name)

    def new_found(self, model: str) -> Interval | None:
        """Return the share of tiles asked for a new instrument in which the oracle hears it."""
        metric = self.metric(model, "new", "instruments_each")
        if metric is None:
            return None
        counts = metric.details.by_instrument
        found = sum(hits for name, (hits, _) in counts.items() if name in LEFT_OUT)
        asked = sum(total for name, (_, total) in counts.items() if name in LEFT_OUT)
        return proportion_interval(found, asked)

    def lines(self) -> tuple[str, ...]:
        """Return the head lines."""
        return tuple(
            f"{what}: {_shown(before)} -> {_shown(after)}"
            for what, before, after in (
                ("new instruments found", self.new_found("base"), self.new_found("tuned")),
                ("known prompts, all instruments found", *self._pair("known", "instruments_all")),
                ("FAD to held-out music with the new instruments", *self._pair("new", "fad")),
            )
        ) + (f"FAD, pair by pair: {_shown(self.metric('tuned', 'new', 'fad_change'))}",)

    def _pair(self, kind: str, name: str) -> tuple[Metric | None, Metric | None]:
        return self.metric("base", kind, name), self.metric("tuned", kind, name)


def read_findings(folder: Path) -> Findings:
    """Read the evaluations of a finished demo."""
    pairs = [(model, kind) for model in ("base", "tuned") for kind in ("new", "known")]
    return Findings({(m, k): read_evaluation(place(folder, f"score_{m}_{k}")) for m, k in pairs})


def _shown(value: Metric | Interval | None) -> str:
    if value is None:
        return "absent"
    if value.low is None or value.high is None:
        return f"{value.value:.3f}"
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
