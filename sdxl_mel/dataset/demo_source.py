"""The demo source: tracks of the built-in corpus, whose captions are true by construction."""

from typing import TYPE_CHECKING

from sdxl_mel.dataset.tracks import SourceList, SourceTrack

if TYPE_CHECKING:
    from sdxl_mel.corpus.tracks import Group, Split

SHARES: dict["Split", float] = {
    "train": 0.4,
    "validation": 0.03,
    "test-seen": 0.18,
    "test-unseen": 0.155,
    "regularization": 0.235,
}
"""Much to test with: rendering is cheap, and distances between sets of a hundred clips are too rough to compare."""
LICENCE = "public domain scores; rendered with TimGM6mb (GPL-2)"


def demo_source(tracks: int, seconds: float, group: "Group", seed: int) -> SourceList:
    """Return `tracks` planned tracks of at least `seconds`, shared out by SHARES, at least one a split."""
    from sdxl_mel.corpus.captions import captions_of
    from sdxl_mel.corpus.scores import score_bank
    from sdxl_mel.corpus.tracks import plan_tracks

    found = SourceList([])
    for split, share in SHARES.items():
        count = max(1, round(tracks * share))
        for plan in plan_tracks(split, count, seconds=seconds, group=group, seed=seed):
            piece = score_bank()[plan.piece]
            name, _, part = split.partition("-")
            found.tracks.append(
                SourceTrack(
                    identifier=plan.identifier,
                    audio=plan,
                    captions=captions_of(piece, plan.instruments, plan.tempo),
                    artist="",
                    licence=LICENCE,
                    split=name,
                    group=part,
                    instruments=plan.instruments,
                )
            )
    return found
