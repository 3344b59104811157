"""The report of a prepared dataset: clips to see and hear, captions before and after, splits, rejects, histograms."""

from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from sdxl_mel.captions.anchor import DROP_RULE
from sdxl_mel.captions.tokens import MAX_TOKENS
from sdxl_mel.config import Skipped
from sdxl_mel.dataset.captioning import TrackCaptions, fates
from sdxl_mel.dataset.decode import opened
from sdxl_mel.dataset.tracks import SourceTrack
from sdxl_mel.files.dataset import Dataset, Item
from sdxl_mel.report.page import Page, Sound, gallery, paragraph, player, svg, table
from sdxl_mel.seeding import derive_seed
from sdxl_mel.sound.encoding import resample

SHOWN_CLIPS = {"train": 8, "validation": 2, "test": 4, "regularization": 2}
SHOWN_CAPTIONS = 400
SHOWN_REJECTS = 100
PLAYED_SECONDS = 6.0
PLAYED_RATE = 16000
THUMBNAIL_WIDTH = 360


def write_report(
    path: Path,
    dataset: Dataset,
    captioned: Sequence[TrackCaptions],
    sources: Mapping[str, SourceTrack],
    *,
    counter: str,
    seed: int,
) -> None:
    """Write the report; the same dataset makes the same bytes."""
    spec = dataset.spec
    page = Page(
        "Prepared dataset",
        f"{sum(len(items) for items in dataset.splits.values())} clips of {spec.tile_seconds:.2f} s, "
        f"{spec.width} x {spec.n_mels} pixels, anchor “{dataset.anchor}”.",
    )
    if dataset.notes:
        page.section("Read this first", *map(paragraph, dataset.notes))
    page.section("Splits", _splits(dataset))
    page.section("Clips", *_contact_sheet(dataset, sources, seed))
    page.section("Captions", *_captions(captioned, counter))
    page.section("Vocals", *_vocals(captioned))
    page.section("Left out", *_left_out("rejected by rule", dataset.rejected), *_left_out("skipped", dataset.skipped))
    page.section("Loudness and length", svg(_histograms(dataset)))
    page.write(path)


def _splits(dataset: Dataset) -> Markup:
    rows = []
    for split, items in dataset.splits.items():
        count = dataset.counts[split]
        artists = len({item.artist for item in items if item.artist})
        minutes = len(items) * dataset.spec.tile_seconds / 60
        groups = ", ".join(
            f"{number} {group}" for group, number in sorted(Counter(i.group for i in items).items()) if group
        )
        rows.append((split, count["clips"], count["tracks"], artists, count["captions"], round(minutes, 1), groups))
    return table(("split", "clips", "tracks", "artists", "captions", "minutes", "groups"), rows)


def _contact_sheet(dataset: Dataset, tracks: Mapping[str, SourceTrack], seed: int) -> list[Markup]:
    blocks: list[Markup] = []
    for split, items in dataset.splits.items():
        drawn = sorted(items, key=lambda item: derive_seed(seed, "contact sheet", item.file))[: SHOWN_CLIPS[split]]
        shown = f"{split}: {len(drawn)} of {len(items)} clips, drawn by the seed"
        blocks.append(paragraph(f"{shown}; at most {PLAYED_SECONDS:.0f} s of each play."))
        blocks.append(gallery(_card(dataset, item, tracks) for item in drawn))
    return blocks


def _card(dataset: Dataset, item: Item, tracks: Mapping[str, SourceTrack]) -> Markup:
    caption = f"{item.track} at {item.offset:.1f} s: {item.captions[0]}"
    seconds = dataset.spec.tile_seconds
    played = _sound(tracks[item.track], item.offset, min(seconds, PLAYED_SECONDS))
    sound = Sound(played, _thumbnail(dataset.folder / item.file))
    return player(sound, caption=caption, spec=dataset.spec, seconds=seconds)


def _thumbnail(path: Path) -> bytes:
    with Image.open(path) as image:
        image.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_WIDTH))
        buffer = BytesIO()
        image.save(buffer, "PNG")
    return buffer.getvalue()


def _sound(track: SourceTrack, offset: float, seconds: float) -> bytes:
    """Return a piece of the source as FLAC, whose bytes, unlike those of Ogg, are always the same."""
    with opened(track.audio) as (_, decode):
        samples, rate = decode()
    start = round(offset * rate)
    piece = samples[:, start : start + round(seconds * rate)].mean(axis=0, keepdims=True)
    buffer = BytesIO()
    sound = np.clip(resample(piece, rate, PLAYED_RATE), -1.0, 1.0)
    soundfile.write(buffer, sound.T, PLAYED_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _captions(captioned: Sequence[TrackCaptions], counter: str) -> list[Markup]:
    changed = [
        (
            each.track,
            caption.before,
            caption.after or "—",
            caption.why or ", ".join(dict.fromkeys(e.rule for e in caption.edits)),
        )
        for each in captioned
        for caption in each.captions
        if caption.fate != "kept"
    ]
    return [
        table(("captions", "count"), sorted(fates(captioned).items())),
        paragraph(f"At most {MAX_TOKENS} CLIP tokens with the anchor, counted by the {counter}; {DROP_RULE}."),
        paragraph(f"{min(len(changed), SHOWN_CAPTIONS)} of {len(changed)} changed captions; captions.jsonl has all."),
        table(("track", "before", "after", "why"), changed[:SHOWN_CAPTIONS]),
    ]


def _vocals(captioned: Sequence[TrackCaptions]) -> list[Markup]:
    vocal = [each for each in captioned if each.decision.vocal]
    words = Counter(word for each in vocal for word in each.decision.evidence)
    return [
        paragraph(
            f"{len(vocal)} of {len(captioned)} tracks count as vocal, decided over all captions and tags of a track."
        ),
        table(("evidence", "tracks"), words.most_common(30)),
    ]


def _left_out(what: str, entries: Sequence[Skipped]) -> list[Markup]:
    reasons = Counter(entry.why.split(":")[0].split(" of ")[0] for entry in entries)
    return [
        paragraph(f"{len(entries)} {what}"),
        table(("reason", "count"), reasons.most_common()),
        table((what, "why"), [(entry.what, entry.why) for entry in entries[:SHOWN_REJECTS]]),
    ]


def _histograms(dataset: Dataset) -> Figure:
    items = [item for group in dataset.splits.values() for item in group]
    lengths = Counter(item.track for item in items)
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist([item.loudness_lufs for item in items], bins=30)
    left.set(xlabel="loudness of a clip, LUFS", ylabel="clips")
    right.hist([count * dataset.spec.tile_seconds for count in lengths.values()], bins=30)
    right.set(xlabel="seconds of clips a track", ylabel="tracks")
    return figure
