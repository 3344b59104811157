"""The report of the demo: what was heard before and after, the numbers, the commands and the time."""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from markupsafe import Markup
from pydantic import TypeAdapter

from sdxl_mel.corpus.instruments import LEFT_OUT
from sdxl_mel.demo.findings import MODELS, Findings, shown
from sdxl_mel.demo.plan import place
from sdxl_mel.demo.steps import Done
from sdxl_mel.files.audio import read_audio
from sdxl_mel.files.evaluation import Metric
from sdxl_mel.files.run import read_metrics
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.report.page import Page, Sound, code, gallery, paragraph, player, sound_bytes, svg, table
from sdxl_mel.synthesis.layout import lay_out
from sdxl_mel.synthesis.settings import Length
from sdxl_mel.training.log import curves_figure

SHOWN = 6
JUDGE = "A program listened, not a person: it names the instruments that it finds in a picture."
NAMES = {
    "instruments_all": "all instruments of the prompt found",
    "fad": "FAD (musicnn) to held-out music",
    "kad": "KAD (musicnn), x 100",
    "diversity": "diversity (mean cosine distance)",
}


def write_page(path: Path, folder: Path, done: Sequence[Done], findings: Findings) -> None:
    """Write report.html."""
    said = {each.step.name: each.summary for each in done}
    names = ", ".join(LEFT_OUT)
    lead = f"A base that never heard {names}; a LoRA that did; the same prompts and seeds."
    page = Page("What the LoRA learned", lead)
    in_words = map(paragraph, (*findings.sentences(), JUDGE))
    page.section("In short", *in_words, table(["", *MODELS], findings.rows()))
    page.section(
        "Before and after",
        paragraph("The first held-out prompts, not chosen. X switches between base and tuned."),
        _before_after(folder),
    )
    page.section("Thirty seconds", *long_pieces(folder, said["stitch"]))
    page.section("The numbers", *_numbers(findings))
    page.section("Training", training_curves(folder))
    page.section("Fidelity: what picture and VAE keep", code(said["ladder"]), code(said["audit"]))
    commands = "\n".join(each.step.command for each in done)
    page.section("The commands", paragraph("Each can be repeated by hand."), code(commands))
    page.section("Where the time went", table(["step", "", "seconds"], _times(done)))
    page.write(path)


def _before_after(folder: Path) -> Markup:
    prompts = [json.loads(line)["prompt"] for line in place(folder, "new").read_text(encoding="utf-8").splitlines()]
    blocks = []
    for prompt in list(dict.fromkeys(prompts))[:SHOWN]:
        name = f"{prompts.index(prompt) + 1:04d}.png"
        heard = [_sound(place(folder, f"{model}_new") / name, name=model) for model in MODELS]
        blocks.append(player(*heard, caption=prompt))
    return gallery(blocks)


def _sound(picture: Path, sound: Path | None = None, name: str = "") -> Sound:
    samples, rate = read_audio(sound or picture.with_suffix(".wav"))
    return Sound(sound_bytes(samples, rate), picture.read_bytes(), name)


def long_pieces(folder: Path, joins: str) -> list[Markup]:
    """Return the piece that was drawn jointly and the stitched one, with their seams marked and what `joins` says."""
    joint, stitched = place(folder, "long") / "0001.png", place(folder, "stitched")
    return [
        player(_sound(joint), caption="joint: overlapping views denoised together", seams=_seams(joint)),
        player(
            _sound(stitched, place(folder, "stitched_sound")),
            caption="independent tiles, stitched; seams marked",
            seams=_seams(stitched),
        ),
        code(joins),
    ]


def _seams(path: Path) -> list[tuple[float, float]]:
    """Return (start, end) in seconds of the joins of a long picture, by its record: stated, or those of its length."""
    picture = read_spectrogram(path)
    settings = picture.record.settings if picture.record else {}
    asked = {field.name: settings[field.name] for field in fields(Length) if field.name in settings}
    stated = TypeAdapter(list[tuple[int, int]]).validate_python(settings.get("seams", []))
    seams = stated or lay_out(TypeAdapter(Length).validate_python(asked), picture.spec).seams
    per_frame = picture.spec.hop_length / picture.spec.sample_rate
    return [(start * per_frame, (start + frames) * per_frame) for start, frames in seams]


def training_curves(folder: Path) -> Markup:
    """Return the curves of the run as the trainer draws them."""
    return svg(curves_figure(read_metrics(place(folder, "run"))), "the losses of the run")


def _numbers(findings: Findings) -> list[Markup]:
    blocks = []
    for kind, words in (("new", "Prompts with the new instruments"), ("known", "Prompts for what the base knows")):
        metrics = {model: findings.evaluations[model, kind].metrics for model in MODELS}
        rows: list[list[object]] = [
            [label, *(_counted(metrics[model].get(name)) for model in MODELS)]
            for name, label in NAMES.items()
            if any(name in each for each in metrics.values())
        ]
        blocks += [Markup("<h3>{}</h3>").format(words), table(["", *MODELS], rows)]
    shuffled = findings.metric("tuned", "new", "instruments_all")
    floor = shuffled.details.shuffled if shuffled else None
    if floor is not None:
        blocks.append(
            paragraph(f"Judged by the prompts of other clips, the tuned model's new tiles score {floor:.2f}.")
        )
    blocks.append(paragraph("Brackets are 95 % intervals. Every value of every clip is in scores/*/metrics.json."))
    return blocks


def _counted(metric: Metric | None) -> str:
    return shown(metric) + (f", N {metric.n}" if metric else "")


def _times(done: Sequence[Done]) -> list[list[object]]:
    rows: list[list[object]] = [[each.step.name, each.step.why, each.seconds] for each in done]
    return [*rows, ["all", "", round(sum(each.seconds for each in done), 1)]]
