"""report.html of an evaluation: the numbers, with the clips and figures behind them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from sdxl_mel.errors import SdxlMelError
from sdxl_mel.evaluation import figures
from sdxl_mel.evaluation.alignment import Scores
from sdxl_mel.evaluation.clips import Clip, Decoding, decode
from sdxl_mel.evaluation.embed_clips import ClipSet
from sdxl_mel.evaluation.embeddings import Embeddings
from sdxl_mel.evaluation.memorization import Pair
from sdxl_mel.evaluation.tables import in_words, interval_text
from sdxl_mel.files.evaluation import Evaluation
from sdxl_mel.files.spectrogram import Spectrogram, encode_png
from sdxl_mel.metrics.diversity import pairwise_distance
from sdxl_mel.metrics.signal_checks import Signal
from sdxl_mel.report.page import Page, Sound, gallery, paragraph, player, sound_bytes, svg, table
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.melspec import PRESETS

SHOWN = 5
SECONDS = 12.0
"""Of a clip that is played in the page."""
PLAIN = PRESETS["mini"]
"""How a sound without a picture is shown."""


@dataclass(frozen=True)
class EvaluationResult:
    """An evaluation, its sets of clips, and how their pictures were decoded.

    `plain` are the embeddings of the plain metrics, `scores` the text scores by prefix, `pairs` every generated clip
    with its nearest training clip.
    """

    evaluation: Evaluation
    sets: dict[str, ClipSet]
    decoding: Decoding
    plain: Embeddings | None
    scores: dict[str, Scores]
    pairs: list[Pair]


def write_page(path: Path, result: EvaluationResult) -> None:
    """Write the report of an evaluation."""
    evaluation = result.evaluation
    counts = ", ".join(f"{those.used} {name} clips" for name, those in evaluation.sets.items())
    page = Page("Evaluation", f"{counts}. Every interval is 95 %.")
    page.section("Numbers", *_numbers(evaluation))
    for prefix in result.scores:
        page.section(f"Prompts: {prefix}", *_alignment(result, prefix))
    if result.plain is not None:
        page.section("Fidelity", *_fidelity(evaluation, result.plain))
        page.section("Diversity", *_diversity(evaluation, result.plain))
    if result.pairs:
        page.section("Nearest training clips", *_neighbours(result))
    page.section("Best and worst", *_extremes(result))
    meanings = [[name, metric.meaning, metric.method] for name, metric in evaluation.metrics.items()]
    models = [
        [name, one.rate, one.dimensions, one.windows, one.weights[:16]] for name, one in evaluation.embedders.items()
    ]
    page.section(
        "What each number is",
        table(["metric", "meaning", "method"], meanings),
        table(["embedder", "rate, Hz", "dimensions", "windows", "SHA-256 of the weights"], models),
    )
    page.write(path)


def _numbers(evaluation: Evaluation) -> list[Markup]:
    rows = [
        [name, metric.value, interval_text(metric), metric.n, metric.embedder or "", in_words(metric)]
        for name, metric in evaluation.metrics.items()
    ]
    blocks = [table(["metric", "value", "95 % interval", "N", "embedder", "in words"], rows)]
    blocks += [paragraph(f"Warning: {warning}") for warning in evaluation.warnings]
    if evaluation.absent:
        blocks.append(table(["absent", "why"], [[each.metric, each.why] for each in evaluation.absent]))
    if evaluation.left_out:
        blocks.append(table(["left out", "why"], [[each.what, each.why] for each in evaluation.left_out]))
    return blocks


def _alignment(result: EvaluationResult, prefix: str) -> list[Markup]:
    scores = result.scores[prefix]
    own = scores.own.tolist()
    metric = result.evaluation.metrics[f"{prefix}_mean"]
    order = np.argsort(scores.truth, kind="stable")
    return [
        gallery(
            [
                svg(figures.histogram(own, metric, "score of a clip with its prompt"), "Spread of the scores"),
                svg(
                    figures.matrix(scores.matrix[order], "prompt", "clip, in the order of its prompt"),
                    "Every clip against every prompt: a bright diagonal is what is wanted",
                ),
            ]
        ),
        svg(figures.bars(metric.by_prompt, "mean score", set(), metric.value), "Score by prompt, lowest first"),
    ]


def _fidelity(evaluation: Evaluation, embeddings: Embeddings) -> list[Markup]:
    caption = "Clips on the two main axes of generated and reference clips"
    blocks = [svg(figures.similarity_map(embeddings), caption)]
    metric = evaluation.metrics.get("fad")
    drawn = figures.curve(metric) if metric else None
    if drawn is not None:
        caption = "FAD falls with the number of clips; at the dashed line it is what real clips score among themselves"
        blocks.append(svg(drawn, caption))
    return [gallery(blocks)]


def _diversity(evaluation: Evaluation, embeddings: Embeddings) -> list[Markup]:
    if "diversity" not in evaluation.metrics:
        return [paragraph("One clip: nothing to compare.")]
    clips, real = embeddings.generated.clips, embeddings.reference.clips
    clips = clips[np.argsort(np.array(embeddings.groups), kind="stable")]
    heat = figures.matrix(1.0 - clips @ clips.T, "clip", "clip")
    blocks = [svg(heat, "Cosine distance between generated clips, ordered by prompt: dark squares are repetition")]
    within = evaluation.metrics.get("diversity_within")
    if within is not None:
        collapsed = set(within.details.collapsed)
        line = pairwise_distance(real) if len(real) > 1 else None
        drawn = figures.bars(within.by_prompt, "distance within the prompt", collapsed, line)
        blocks.append(svg(drawn, "Distance within each prompt; the dashed line is the whole reference"))
    return [gallery(blocks)]


def _neighbours(result: EvaluationResult) -> list[Markup]:
    shown = [pair for pair in result.pairs if pair.is_copy][:SHOWN] or result.pairs[:SHOWN]
    clips = {name: {clip.name: clip for clip in those.clips} for name, those in result.sets.items()}
    rows = []
    for pair in result.pairs[: 4 * SHOWN]:
        correlation = "not compared" if pair.correlation is None else f"{pair.correlation:.3f}"
        rows.append([pair.clip, pair.training, pair.cosine, correlation, "copy" if pair.is_copy else "new"])
    blocks = [table(["generated", "nearest training clip", "cosine", "aligned correlation", ""], rows)]
    for pair in shown:
        generated, training = clips["generated"][pair.clip], clips["training"][pair.training]
        blocks.append(
            gallery([_card(result, generated, pair.clip), _card(result, training, f"training: {pair.training}")])
        )
    return blocks


def _extremes(result: EvaluationResult) -> list[Markup]:
    name, values, best_high = _ranking(result)
    if not values:
        return [paragraph("No clip has a score.")]
    clips = {clip.name: clip for clip in result.sets["generated"].clips}
    order = sorted(values, key=lambda clip: -values[clip] if best_high else values[clip])
    best, worst = order[:SHOWN], order[SHOWN:][-SHOWN:][::-1]
    rows = {row["file"]: row for row in result.evaluation.clips}

    def cards(names: list[str]) -> Markup:
        return gallery(
            [_card(result, clips[each], f"{each}: {values[each]:.3f} {rows[each]['prompt']}") for each in names]
        )

    blocks = [paragraph(f"By {name}. Best:"), cards(best)]
    return [*blocks, paragraph("Worst:"), cards(worst)] if worst else blocks


def _ranking(result: EvaluationResult) -> tuple[str, dict[str, float], bool]:
    """Return what clips are ranked by: a text score where there is one, else nearness to the reference."""
    columns = [(f"{prefix}_score", True) for prefix in result.scores] + [("neighbour_distance", False)]
    for column, high in columns:
        found = {str(row["file"]): row.get(column) for row in result.evaluation.clips}
        values = {file: value for file, value in found.items() if isinstance(value, float)}
        if values:
            return column, values, high
    return "", {}, True


def _card(result: EvaluationResult, clip: Clip, caption: str) -> Markup:
    try:
        signal = decode(clip, result.decoding)
    except SdxlMelError as error:
        return paragraph(f"{caption}: {error}")
    samples = signal.samples[:2, : int(SECONDS * signal.rate)]
    peak = float(np.abs(samples).max(initial=0.0))
    quiet = samples / peak if peak > 1 else samples
    shown = _picture(signal)
    return player(Sound(sound_bytes(quiet, signal.rate), encode_png(shown)), caption=caption)


def _picture(signal: Signal) -> Spectrogram:
    """Return the picture of what is played: the clip's own where it has one, else one made of its sound."""
    if signal.picture is not None:
        spec = signal.picture.spec
        return Spectrogram(signal.picture.levels[:, : round(SECONDS * spec.sample_rate / spec.hop_length)], spec)
    piece = signal.samples[:, : int(SECONDS * signal.rate)]
    prepared = prepare_signal(piece, signal.rate, PLAIN)
    frames = prepared.shape[1] // PLAIN.hop_length
    return Spectrogram(encode_clip(cut_clip(prepared, 0, frames, PLAIN), PLAIN), PLAIN)
