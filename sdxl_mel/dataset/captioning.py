"""The captions of every track: decided, cleaned, anchored, and accounted for one by one."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from sdxl_mel.captions.anchor import anchored
from sdxl_mel.captions.clean import clean, normalise
from sdxl_mel.captions.edits import Edit, Edited
from sdxl_mel.captions.tokens import TokenCounter
from sdxl_mel.captions.vocals import Decision, decide
from sdxl_mel.dataset.tracks import SourceTrack
from sdxl_mel.files.atomic import write_text

Fate = Literal["kept", "cleaned", "dropped"]


@dataclass(frozen=True)
class Caption:
    """What became of one caption; `after` has the anchor, `why` says why it was dropped or what did not fit."""

    before: str
    after: str
    fate: Fate
    why: str = ""
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True)
class Wording:
    """The captions of one track, and whether it is vocal."""

    track: str
    decision: Decision
    captions: tuple[Caption, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the captions to train on."""
        return tuple(caption.after for caption in self.captions if caption.fate != "dropped")


def word(
    track: SourceTrack,
    *,
    anchor: str,
    vocals: str,
    class_caption: str,
    counter: TokenCounter,
    score: float | None = None,
) -> Wording:
    """Return what becomes of a track's captions.

    A track for regularization has `class_caption` alone and no anchor. A track none of whose captions is left has the
    anchor alone; one for which there is no anchor either keeps nothing.
    """
    decision = decide(track.captions, track.tags, score) if track.split != "regularization" else Decision(False)
    if track.split == "regularization":
        return Wording(track.identifier, decision, tuple(_plain(text) for text in track.captions))
    if decision.vocal and vocals != "keep":
        why = "vocals: the track is dropped" if vocals == "drop" else f"vocals: {class_caption!r} in its place"
        dropped = tuple(Caption(text, "", "dropped", why) for text in track.captions)
        stand_in = (Caption("", class_caption, "kept"),) if vocals == "regularization" else ()
        return Wording(track.identifier, decision, dropped + stand_in)
    captions: list[Caption] = []
    for text in track.captions:
        caption = _trained(text, track.names, not decision.vocal, anchor, counter)
        if caption.after and any(caption.after.lower() == other.after.lower() for other in captions):
            caption = Caption(text, "", "dropped", "the same as another caption of the track", caption.edits)
        captions.append(caption)
    if not any(caption.after for caption in captions) and anchor:
        captions.append(Caption("", anchor, "kept"))
    return Wording(track.identifier, decision, tuple(captions))


def write_log(path: Path, wordings: Iterable[Wording]) -> None:
    """Write one JSON line a caption: before, after, and the edits that lead from one to the other and back."""
    lines = []
    for wording in wordings:
        for caption in wording.captions:
            row = {"track": wording.track, "vocal": wording.decision.vocal} | asdict(caption)
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def fates(wordings: Sequence[Wording]) -> dict[str, int]:
    """Return how many captions of the source were kept as they were, cleaned, and dropped, the latter by reason."""
    given = [caption for wording in wordings for caption in wording.captions if caption.before]
    empty = sum(not caption.before and not caption.after for wording in wordings for caption in wording.captions)
    counts = Counter(
        caption.fate if caption.fate != "dropped" else f"dropped: {caption.why.split(':')[0]}" for caption in given
    )
    return dict(sorted(counts.items())) | ({"dropped: empty": empty} if empty else {})


def _plain(text: str) -> Caption:
    edited = normalise(Edited(text))
    return Caption(text, edited.text, "cleaned" if edited.edits else "kept", "", edited.edits)


def _trained(text: str, names: Sequence[str], instrumental: bool, anchor: str, counter: TokenCounter) -> Caption:
    if not text.strip():
        return Caption(text, "", "dropped", "empty")
    edited = clean(text, names, instrumental)
    if not edited.text:
        return Caption(text, "", "dropped", "nothing about the music is left", edited.edits)
    fitted = anchored(edited.text, anchor, counter)
    why = f"too long: without {fitted.dropped!r}" if fitted.dropped else ""
    return Caption(text, fitted.text, "cleaned" if edited.edits or why else "kept", why, edited.edits)
