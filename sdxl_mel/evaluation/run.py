"""From folders to an evaluation: find, pair, embed, and let every group of metrics speak."""

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import JsonValue

from sdxl_mel.arrays import Float
from sdxl_mel.config import Skipped
from sdxl_mel.errors import InputError, SdxlMelError
from sdxl_mel.evaluation.alignment import Scores, adherence, score_prompts
from sdxl_mel.evaluation.clips import Clip, Decoding, decode, find_clips
from sdxl_mel.evaluation.diversity import spread
from sdxl_mel.evaluation.embed_clips import ClipSet, Embedding, resampled
from sdxl_mel.evaluation.embeddings import Cloud, Space
from sdxl_mel.evaluation.fidelity import fidelity
from sdxl_mel.evaluation.instruments import instruments, reference_instruments
from sdxl_mel.evaluation.memorization import Pair, Training, novelty
from sdxl_mel.evaluation.prompts import pair_prompts
from sdxl_mel.evaluation.signal_checks import signal_checks
from sdxl_mel.files.evaluation import Absent, EmbedderInfo, Evaluation, Metric, SetInfo
from sdxl_mel.metrics.alignment import matched_scores
from sdxl_mel.metrics.embedders.base import AudioEmbedder
from sdxl_mel.metrics.embedders.registry import Sources, open_embedders
from sdxl_mel.metrics.memorization import SAMPLE_RATE
from sdxl_mel.metrics.oracle import load_oracle
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import named_spec

if TYPE_CHECKING:
    from sdxl_mel.stages.evaluate import Config

PACKAGES = ("numpy", "scipy", "librosa", "torch", "transformers", "soxr")
SCORERS = {"clap": "clap", "laion-clap": "laion_clap", "tagbridge": "tagbridge"}
"""Embedders with a text side, and the prefix of their alignment metrics."""


@dataclass
class Judgement:
    """An evaluation, and what the report shows of it: sets, spaces (the first is the main one), scores and pairs."""

    evaluation: Evaluation
    sets: dict[str, ClipSet]
    decoding: Decoding
    spaces: list[Space]
    scores: dict[str, Scores]
    pairs: list[Pair]


@dataclass
class _Findings:
    metrics: dict[str, Metric] = field(default_factory=dict)
    absent: list[Absent] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    per_clip: dict[str, list[float]] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)


def judge(config: "Config") -> Judgement:
    """Return the evaluation of a config. Raises InputError where there is nothing to evaluate."""
    from sdxl_mel.stages.evaluate import DEFAULT_EMBEDDERS

    decoding = Decoding(config.inversion, named_spec(config.format) if config.format else None)
    files = {"generated": find_clips(config.generated, "test", leave_out=config.out)}
    files["reference"] = find_clips(config.reference, "test")
    if config.training is not None:
        files["training"] = find_clips(config.training, "train")
    if config.against is not None:
        files["against"] = find_clips(config.against, "test")
    prompts, unmatched = pair_prompts(files["generated"], config.generated, config.prompts, config.anchor)
    opened = open_embedders(
        config.embedder or DEFAULT_EMBEDDERS, Sources(config.clap, config.laion_clap, config.device)
    )
    if not opened.embedders:
        raise InputError("none of the embedders is there: " + "; ".join(opened.absent.values()))
    sets = Embedding(opened.embedders, decoding, config.cache or config.out / "cache").embed(files)
    for name in ("generated", "reference"):
        _require_some(sets[name], name)
    spaces = [_space(embedder, sets, prompts, config.seed) for embedder in opened.embedders]
    findings = _findings(opened.embedders, spaces, sets, decoding)
    if config.instruments:
        _add_instruments(findings, config, sets, prompts)
    findings.absent += [Absent(metric=name, why=why) for name, why in opened.absent.items()]
    evaluation = Evaluation(
        record=_record(config, files),
        versions={package: version(package) for package in PACKAGES},
        metrics=findings.metrics,
        absent=tuple(findings.absent),
        warnings=tuple(findings.warnings),
        embedders={one.name: _info(one, sets) for one in opened.embedders},
        sets={name: _set_info(those) for name, those in sets.items()},
        left_out=tuple(
            [
                Skipped(what=f"{name}/{each.what}", why=each.why)
                for name, those in sets.items()
                for each in those.left_out
            ]
            + unmatched
        ),
        clips=tuple(_clip_rows(sets["generated"], prompts, findings)),
    )
    return Judgement(evaluation, sets, decoding, spaces, findings.scores, findings.pairs)


def _findings(
    embedders: list[AudioEmbedder], spaces: list[Space], sets: dict[str, ClipSet], decoding: Decoding
) -> _Findings:
    findings = _Findings()
    plain = next((space for space in spaces if space.embedder != "tagbridge"), None)
    for embedder, space in zip(embedders, spaces):
        if space.embedder in SCORERS:
            _add_scores(findings, embedder, space, sets["generated"])
        if space.embedder != "tagbridge":
            _add_distances(findings, space, is_plain=space is plain)
    if plain is not None and "training" in sets:
        metrics, absent, findings.pairs = novelty(plain, _training(plain, sets, decoding))
        findings.metrics |= metrics
        findings.absent += absent
        _warn_of_copies(findings)
    elif "training" not in sets:
        findings.absent.append(Absent(metric="copies", why="no --training folder was given"))
    generated = sets["generated"]
    findings.metrics |= signal_checks(generated.facts, sets["reference"].facts, spaces[0].groups)
    return findings


def _add_distances(findings: _Findings, space: Space, is_plain: bool) -> None:
    suffix = "" if is_plain else f"@{space.embedder}"
    metrics, absent, per_clip = fidelity(space, with_curve=is_plain)
    more, more_absent, warnings = spread(space)
    for name, metric in (metrics | more).items():
        findings.metrics[f"{name}{suffix}"] = metric
    if is_plain:
        findings.absent += absent + more_absent
        findings.warnings += warnings
        findings.per_clip |= per_clip


def _add_scores(findings: _Findings, embedder: AudioEmbedder, space: Space, generated: ClipSet) -> None:
    prefix = SCORERS[space.embedder]
    scores = score_prompts(embedder, generated.windows[space.embedder], space)
    if scores is None:
        why = "no prompt is known for any clip; give --prompts FILE with the columns file and prompt"
        findings.absent.append(Absent(metric=f"{prefix}_mean", why=why))
        return
    metrics, absent = adherence(scores, space, prefix)
    findings.metrics |= metrics
    findings.absent += absent
    findings.scores[prefix] = scores
    values = np.full(len(space.names), np.nan)
    values[scores.clips] = matched_scores(scores.matrix, scores.truth)
    findings.per_clip[f"{prefix}_score"] = values.tolist()


def _add_instruments(findings: _Findings, config: "Config", sets: dict[str, ClipSet], prompts: dict[str, str]) -> None:
    try:
        oracle = load_oracle()
    except SdxlMelError as error:
        findings.absent.append(Absent(metric="instruments_all", why=str(error)))
        return
    real = reference_instruments(config.reference, sets["reference"].clips)
    metrics, absent = instruments(sets["generated"].clips, prompts, oracle, config.seed, real)
    findings.metrics |= metrics
    findings.absent += absent


def _warn_of_copies(findings: _Findings) -> None:
    for pair in findings.pairs:
        if pair.is_copy:
            findings.warnings.append(
                f"{pair.clip} is a copy of training clip {pair.training} (cosine {pair.cosine:.3f}, aligned mel "
                f"correlation {pair.correlation:.3f})"
            )


def _space(embedder: AudioEmbedder, sets: dict[str, ClipSet], prompts: dict[str, str], seed: int) -> Space:
    names = sets["generated"].names
    before, after = _partners(sets, embedder.name) if "against" in sets else (None, None)
    return Space(
        embedder=embedder.name,
        family=getattr(embedder, "family", None),
        generated=Cloud(sets["generated"].windows[embedder.name]),
        reference=Cloud(sets["reference"].windows[embedder.name]),
        names=names,
        prompts=[prompts.get(name) for name in names],
        seed=seed,
        before=before,
        after=after,
    )


def _partners(sets: dict[str, ClipSet], embedder: str) -> tuple[Cloud, Cloud]:
    """Return the clips of --against and the generated ones, those of a name that both have, in one order."""
    before, after = (dict(zip(sets[name].names, sets[name].windows[embedder])) for name in ("against", "generated"))
    shared = [name for name in after if name in before]
    if not shared:
        raise InputError(
            "--against has no clip named as a generated one; give what another model made of the same prompts and seeds"
        )
    return Cloud([before[name] for name in shared]), Cloud([after[name] for name in shared])


def _training(space: Space, sets: dict[str, ClipSet], decoding: Decoding) -> Training:
    trained = {clip.sha256 for clip in sets["training"].clips}
    held_out = [index for index, clip in enumerate(sets["reference"].clips) if clip.sha256 not in trained]

    def listen(training: bool, index: int) -> Float:
        sound = decode(sets["training" if training else "generated"].clips[index], decoding)
        return resampled({sound.rate: sound.mono()}, sound.rate, SAMPLE_RATE)

    windows = sets["training"].windows[space.embedder]
    return Training(Cloud(windows), sets["training"].names, held_out, listen)


def _require_some(clips: ClipSet, name: str) -> None:
    if not clips.clips:
        first = clips.left_out[0]
        raise InputError(
            f"none of the {len(clips.left_out)} {name} clips can be used; the first: {first.what}: {first.why}"
        )


def _record(config: "Config", files: dict[str, list[Clip]]) -> Record:
    settings: dict[str, Any] = {
        "embedder": list(config.embedder),
        "inversion": config.inversion,
        "format": config.format,
        "anchor": config.anchor,
        "seed": config.seed,
    }
    return Record(stage="evaluate", settings=settings, inputs={name: str(len(those)) for name, those in files.items()})


def _info(embedder: AudioEmbedder, sets: dict[str, ClipSet]) -> EmbedderInfo:
    return EmbedderInfo(
        weights=embedder.weights,
        rate=embedder.rate,
        windows=embedder.windows,
        family=getattr(embedder, "family", None),
        dimensions=sets["generated"].windows[embedder.name][0].shape[1],
    )


def _set_info(clips: ClipSet) -> SetInfo:
    return SetInfo(
        used=len(clips.clips),
        left_out=len(clips.left_out),
        seconds=sum(facts.seconds for facts in clips.facts),
        files={clip.name: clip.sha256 for clip in clips.clips},
    )


def _clip_rows(generated: ClipSet, prompts: dict[str, str], findings: _Findings) -> list[dict[str, JsonValue]]:
    nearest = {pair.clip: pair for pair in findings.pairs}
    rows = []
    for index, (clip, facts) in enumerate(zip(generated.clips, generated.facts)):
        row: dict[str, JsonValue] = {"file": clip.name, "prompt": prompts.get(clip.name, "")}
        for name, values in findings.per_clip.items():
            row[name] = values[index] if np.isfinite(values[index]) else None
        if clip.name in nearest:
            pair = nearest[clip.name]
            row |= {"nearest_training": pair.training, "training_cosine": pair.cosine, "copy": pair.is_copy}
        row |= {"seconds": facts.seconds, "lufs": facts.lufs, "silent": facts.silent, "clipped": facts.clipped}
        row |= {"rolloff": facts.rolloff, "consistency": facts.consistency}
        rows.append(row)
    return rows
