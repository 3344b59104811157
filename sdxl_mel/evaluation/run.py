"""From folders to an evaluation: find, pair and embed the clips, compute every group of metrics, write the results."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from sdxl_mel.arrays import Float
from sdxl_mel.config import Skipped
from sdxl_mel.devices import find_device
from sdxl_mel.errors import InputError, SdxlMelError
from sdxl_mel.evaluation.alignment import Scores, alignment, score_prompts
from sdxl_mel.evaluation.clips import Decoding, decode, find_clips, pairs_hash
from sdxl_mel.evaluation.diversity import diversity
from sdxl_mel.evaluation.embed_clips import ClipSet, embed_sets, resampled
from sdxl_mel.evaluation.embeddings import Embeddings, Metrics, SetEmbeddings, metric_of
from sdxl_mel.evaluation.fidelity import fidelity
from sdxl_mel.evaluation.instruments import instruments, reference_instruments
from sdxl_mel.evaluation.memorization import Pair, Training, memorization
from sdxl_mel.evaluation.page import EvaluationResult, write_page
from sdxl_mel.evaluation.prompts import pair_prompts
from sdxl_mel.evaluation.tables import clip_table, metric_table
from sdxl_mel.files.atomic import write_text
from sdxl_mel.files.evaluation import FILE_NAME, Absent, EmbedderInfo, Evaluation, Metric, SetInfo, write_evaluation
from sdxl_mel.metrics.embedders.base import AudioEmbedder, TextAudioEmbedder
from sdxl_mel.metrics.embedders.registry import Sources, open_embedders
from sdxl_mel.metrics.intervals import mean_interval
from sdxl_mel.metrics.memorization import SAMPLE_RATE
from sdxl_mel.metrics.options import DEFAULT_EMBEDDERS
from sdxl_mel.metrics.oracle import load_oracle
from sdxl_mel.metrics.signal_checks import FACTS, Facts
from sdxl_mel.options import DEFAULT_ANCHOR, Method
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import MelSpec

PACKAGES = ("numpy", "scipy", "librosa", "torch", "transformers", "soxr")


def evaluate(
    generated: Path,
    reference: Path,
    *,
    cache: Path,
    training: Path | None = None,
    against: Path | None = None,
    prompts: Path | None = None,
    anchor: str = DEFAULT_ANCHOR,
    embedders: Sequence[str] = DEFAULT_EMBEDDERS,
    clap: str | None = None,
    laion_clap: Path | None = None,
    device: str = "cpu",
    inversion: Method = "best",
    stated: MelSpec | None = None,
    with_instruments: bool = False,
    seed: int = 0,
    leave_out: Path | None = None,
    settings: Mapping[str, JsonValue] | None = None,
) -> EvaluationResult:
    """Compare a folder of generated clips with a folder of reference clips.

    `training` are the clips that were trained on, `against` those of another model for the same prompts and seeds,
    `prompts` a manifest (without one the records inside the clips count). Embeddings are kept in `cache`; generated
    files below `leave_out` are not clips. Pictures become sound by `inversion`, those without a spec by the one
    `stated`. `settings` are what the record says. Raises InputError where there is nothing to evaluate.
    """
    decoding = Decoding(inversion, stated)
    given = {"generated": generated, "reference": reference, "training": training, "against": against}
    folders = {name: folder for name, folder in given.items() if folder is not None}
    found = {
        name: find_clips(folder, "train" if name == "training" else "test", leave_out if name == "generated" else None)
        for name, folder in folders.items()
    }
    files = {name: clips for name, (clips, _) in found.items()}
    texts, unmatched = pair_prompts(files["generated"], generated, prompts, anchor)
    opened, closed = open_embedders(embedders, Sources(clap, laion_clap, find_device(device)))
    if not opened:
        raise InputError("none of the embedders can be opened: " + "; ".join(closed.values()))
    sets = embed_sets(files, opened, decoding, cache)
    bad_files = {name: [*those.left_out, *found[name][1]] for name, those in sets.items()}
    for name in ("generated", "reference"):
        if not sets[name].clips:
            bad = bad_files[name]
            raise InputError(f"none of the {len(bad)} {name} clips can be used; the first: {bad[0].what}: {bad[0].why}")
    views = [_embeddings(embedder, sets, texts, seed) for embedder in opened]
    plain = next((view for view, embedder in zip(views, opened) if embedder.is_space), None)
    findings = _Findings()
    for embedder, view in zip(opened, views):
        findings.add_alignment(embedder, view)
        findings.add_distances(embedder, view, is_plain=view is plain)
    findings.add_memorization(plain, sets, decoding)
    findings.add(_signal_checks(sets["generated"].facts, sets["reference"].facts, views[0].groups))
    if with_instruments:
        findings.add_instruments(sets, texts, reference, seed)
    findings.absent += [Absent(metric=name, why=why) for name, why in closed.items()]
    hashes = {name: pairs_hash((clip.name, clip.sha256) for clip in clips) for name, clips in files.items()}
    if texts:
        hashes["prompts"] = pairs_hash(texts.items())
    left_out = [
        Skipped(what=f"{name}/{each.what}", why=each.why) for name, those in bad_files.items() for each in those
    ]
    evaluation = Evaluation(
        record=Record(stage="evaluate", settings=dict(settings or {}), inputs=hashes),
        versions={package: version(package) for package in PACKAGES},
        metrics=findings.metrics,
        absent=tuple(findings.absent),
        warnings=tuple(findings.warnings),
        embedders={one.name: _info(one, sets) for one in opened},
        sets={name: _set_info(those, len(bad_files[name])) for name, those in sets.items()},
        left_out=(*left_out, *unmatched),
        clips=tuple(_clip_rows(sets["generated"], texts, findings)),
    )
    return EvaluationResult(evaluation, sets, decoding, plain, findings.scores, findings.pairs)


def write_result(folder: Path, result: EvaluationResult, with_page: bool = True) -> None:
    """Write metrics.json, metrics.txt, clips.csv and, if asked, report.html."""
    write_evaluation(folder / FILE_NAME, result.evaluation)
    write_text(folder / "metrics.txt", metric_table(result.evaluation) + "\n")
    write_text(folder / "clips.csv", clip_table(result.evaluation))
    if with_page:
        write_page(folder / "report.html", result)


@dataclass
class _Findings:
    """What the groups of metrics have found so far; `per_clip` holds columns of the table of clips."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    absent: list[Absent] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    per_clip: dict[str, list[float]] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)

    def add(self, metrics: Mapping[str, Metric], absent: Sequence[Absent] = ()) -> None:
        self.metrics |= metrics
        self.absent += absent

    def add_alignment(self, embedder: AudioEmbedder, embeddings: Embeddings) -> None:
        if not isinstance(embedder, TextAudioEmbedder):
            return
        scores = score_prompts(embedder, embeddings)
        if scores is None:
            why = "no prompt is known for any clip; give --prompts FILE with the columns file and prompt"
            self.absent.append(Absent(metric=f"{embedder.prefix}_mean", why=why))
            return
        self.add(*alignment(scores, embeddings, embedder))
        self.scores[embedder.prefix] = scores
        values = np.full(len(embeddings.names), np.nan)
        values[scores.clips] = scores.own
        self.per_clip[f"{embedder.prefix}_score"] = values.tolist()

    def add_distances(self, embedder: AudioEmbedder, embeddings: Embeddings, is_plain: bool) -> None:
        if not embedder.is_space:
            return
        metrics, absent, per_clip = fidelity(embeddings, with_curve=is_plain)
        more, more_absent, warnings = diversity(embeddings)
        if is_plain:
            self.add(metrics | more, absent + more_absent)
            self.warnings += warnings
            self.per_clip |= per_clip
        else:
            self.add({f"{name}@{embedder.name}": metric for name, metric in (metrics | more).items()})

    def add_memorization(self, plain: Embeddings | None, sets: Mapping[str, ClipSet], decoding: Decoding) -> None:
        if "training" not in sets:
            self.absent.append(Absent(metric="copies", why="no --training folder was given"))
        elif plain is not None:
            metrics, absent, self.pairs = memorization(plain, _training(sets, decoding))
            self.add(metrics, absent)
            self.warnings += [
                f"{pair.clip} is a copy of training clip {pair.training} (cosine {pair.cosine:.3f}, aligned mel "
                f"correlation {pair.correlation:.3f})"
                for pair in self.pairs
                if pair.is_copy
            ]

    def add_instruments(
        self, sets: Mapping[str, ClipSet], texts: Mapping[str, str], reference: Path, seed: int
    ) -> None:
        try:
            oracle = load_oracle()
        except SdxlMelError as error:
            self.absent.append(Absent(metric="instruments_all", why=str(error)))
            return
        real = reference_instruments(reference, sets["reference"].clips)
        self.add(*instruments(sets["generated"].clips, texts, oracle, seed, real))


def _embeddings(
    embedder: AudioEmbedder, sets: Mapping[str, ClipSet], texts: Mapping[str, str], seed: int
) -> Embeddings:
    names = sets["generated"].names
    vectors = {name: SetEmbeddings(those.windows[embedder.name]) for name, those in sets.items()}
    before, after = _partners(sets, embedder.name) if "against" in sets else (None, None)
    return Embeddings(
        embedder=embedder.name,
        family=embedder.family,
        generated=vectors["generated"],
        reference=vectors["reference"],
        training=vectors.get("training"),
        names=names,
        prompts=[texts.get(name) for name in names],
        seed=seed,
        before=before,
        after=after,
    )


def _partners(sets: Mapping[str, ClipSet], embedder: str) -> tuple[SetEmbeddings, SetEmbeddings]:
    """Return the clips of --against and the generated ones, those of a name that both have, in one order."""
    before, after = (dict(zip(sets[name].names, sets[name].windows[embedder])) for name in ("against", "generated"))
    shared = [name for name in after if name in before]
    if not shared:
        raise InputError(
            "--against has no clip named as a generated one; give what another model made of the same prompts and seeds"
        )
    return SetEmbeddings([before[name] for name in shared]), SetEmbeddings([after[name] for name in shared])


def _training(sets: Mapping[str, ClipSet], decoding: Decoding) -> Training:
    trained = {clip.sha256 for clip in sets["training"].clips}
    held_out = [index for index, clip in enumerate(sets["reference"].clips) if clip.sha256 not in trained]

    def samples(training: bool, index: int) -> Float:
        signal = decode(sets["training" if training else "generated"].clips[index], decoding)
        return resampled({signal.rate: signal.mono()}, signal.rate, SAMPLE_RATE)

    return Training(sets["training"].names, held_out, samples)


def _signal_checks(generated: Sequence[Facts], reference: Sequence[Facts], groups: Sequence[str]) -> Metrics:
    """Return the mean of each fact of a sound over the generated clips, with the reference's beside it."""
    metrics: Metrics = {}
    for fact in FACTS:
        known = [(value, group) for each, group in zip(generated, groups) if (value := each[fact.name]) is not None]
        if not fact.metric or not known:
            continue
        values = [value for value, _ in known]
        beside = [value for each in reference if (value := each[fact.name]) is not None]
        metrics[fact.metric] = metric_of(
            mean_interval(values, [group for _, group in known]).within(fact.least, fact.most),
            fact.meaning,
            n=len(values),
            better=fact.better,
            details={"worst": max(values), "reference": float(np.mean(beside)) if beside else None},
        )
    return metrics


def _info(embedder: AudioEmbedder, sets: Mapping[str, ClipSet]) -> EmbedderInfo:
    return EmbedderInfo(
        weights=embedder.weights,
        rate=embedder.rate,
        windows=embedder.windows,
        family=embedder.family,
        dimensions=sets["generated"].windows[embedder.name][0].shape[1],
    )


def _set_info(clips: ClipSet, left_out: int) -> SetInfo:
    return SetInfo(
        used=len(clips.clips),
        left_out=left_out,
        seconds=sum(facts["seconds"] or 0.0 for facts in clips.facts),
        files={clip.name: clip.sha256 for clip in clips.clips},
    )


def _clip_rows(generated: ClipSet, texts: Mapping[str, str], findings: _Findings) -> Iterator[dict[str, JsonValue]]:
    nearest = {pair.clip: pair for pair in findings.pairs}
    for index, (clip, facts) in enumerate(zip(generated.clips, generated.facts)):
        row: dict[str, JsonValue] = {"file": clip.name, "prompt": texts.get(clip.name, "")}
        for name, values in findings.per_clip.items():
            row[name] = values[index] if np.isfinite(values[index]) else None
        if clip.name in nearest:
            pair = nearest[clip.name]
            row |= {"nearest_training": pair.training, "training_cosine": pair.cosine, "copy": pair.is_copy}
        yield row | {fact.name: facts[fact.name] for fact in FACTS if fact.column}
