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
from sdxl_mel.dataset.settings import Captioning
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
class TrackCaptions:
    """The captions of one track, and whether it is vocal."""

    track: str
    decision: Decision
    captions: tuple[Caption, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the captions to train on."""
        return tuple(caption.after for caption in self.captions if caption.fate != "dropped")


def caption_track(
    track: SourceTrack, captioning: Captioning, counter: TokenCounter, voice: float | None = None
) -> TrackCaptions:
    """Return what becomes of a track's captions; `voice` is the probability that one is heard, where it was measured.

    A track for regularization has its captions as they are, one that becomes so the class caption alone, both after
    the anchor for regularization. A track none of whose captions is left has the anchor alone; one for which there is
    no anchor either keeps nothing.
    """
    decision = decide(track.captions, track.tags, voice) if track.split != "regularization" else Decision(False)
    plain_anchor = captioning.regularization_anchor
    if track.split == "regularization":
        plain = tuple(_plain(text, plain_anchor, counter) for text in track.captions)
        return TrackCaptions(track.identifier, decision, plain)
    if decision.vocal and captioning.vocals != "keep":
        stand_in = captioning.class_caption if captioning.vocals == "regularization" else ""
        why = f"vocals: {stand_in!r} in its place" if stand_in else "vocals: the track is dropped"
        dropped = [Caption(text, "", "dropped", why) for text in track.captions]
        kept = [Caption("", _behind(plain_anchor, stand_in, counter), "kept")] if stand_in else []
        return TrackCaptions(track.identifier, decision, (*dropped, *kept))
    captions: list[Caption] = []
    for text in track.captions:
        caption = _trained(text, track.names, not decision.vocal, captioning.anchor, counter)
        if caption.after and any(caption.after.lower() == other.after.lower() for other in captions):
            caption = Caption(text, "", "dropped", "the same as another caption of the track", caption.edits)
        captions.append(caption)
    if not any(caption.after for caption in captions) and captioning.anchor:
        captions.append(Caption("", captioning.anchor, "kept"))
    return TrackCaptions(track.identifier, decision, tuple(captions))


def write_log(path: Path, tracks: Iterable[TrackCaptions]) -> None:
    """Write one JSON line a caption: before, after, and the edits that lead from one to the other and back."""
    lines = []
    for track in tracks:
        for caption in track.captions:
            row = {"track": track.track, "vocal": track.decision.vocal} | asdict(caption)
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def fates(tracks: Sequence[TrackCaptions]) -> dict[str, int]:
    """Return how many captions of the source were kept as they were, cleaned, and dropped, the latter by reason."""
    given = [caption for track in tracks for caption in track.captions if caption.before]
    empty = sum(not caption.before and not caption.after for track in tracks for caption in track.captions)
    counts = Counter(
        caption.fate if caption.fate != "dropped" else f"dropped: {caption.why.split(':')[0]}" for caption in given
    )
    return dict(sorted(counts.items())) | ({"dropped: empty": empty} if empty else {})


def _plain(text: str, anchor: str, counter: TokenCounter) -> Caption:
    edited = normalise(Edited(text))
    after = _behind(anchor, edited.text, counter)
    return Caption(text, after, "cleaned" if edited.edits else "kept", "", edited.edits)


def _behind(anchor: str, text: str, counter: TokenCounter) -> str:
    return anchored(text, anchor, counter).text if anchor else text


def _trained(text: str, names: Sequence[str], instrumental: bool, anchor: str, counter: TokenCounter) -> Caption:
    if not text.strip():
        return Caption(text, "", "dropped", "empty")
    edited = clean(text, names, instrumental)
    if not edited.text:
        return Caption(text, "", "dropped", "nothing about the music is left", edited.edits)
    fitted = anchored(edited.text, anchor, counter)
    why = f"too long: without {fitted.dropped!r}" if fitted.dropped else ""
    return Caption(text, fitted.text, "cleaned" if edited.edits or why else "kept", why, edited.edits)
