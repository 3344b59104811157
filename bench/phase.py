"""What a listener loses where phases are retrieved: inverted tiles beside the sound that they are pictures of.

Renders of held-out pieces with the demo's new instruments, two tiles a track; nothing is generated and no VAE is used.
Embeddings are kept below runs/phase, block by block: a table that was interrupted goes on.
`python -m bench.phase`
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.distill import told
from bench.table import Table
from sdxl_mel.arrays import Float
from sdxl_mel.corpus.tracks import TrackPlan, plan_tracks, render_track
from sdxl_mel.files.atomic import atomic_path
from sdxl_mel.metrics.embedders.base import unit_rows
from sdxl_mel.metrics.embedders.musicnn import MusicnnEmbedder
from sdxl_mel.metrics.frechet import distance_between, frechet_change, frechet_interval
from sdxl_mel.metrics.intervals import Interval
from sdxl_mel.metrics.kernel import kernel_distance, kernel_sums, median_distance
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.melspec import PRESETS

TRACKS, BLOCK, SECONDS = 121, 11, 9.0
SPEC = PRESETS["mini"]
FIRST_FRAME = 32
"""Before it a render lacks what sounded before its start."""
KINDS = ("true phase", "inverted, `fast`", "inverted, `best`", "other tiles")
FOLDER = Path("runs/phase")

Rows = NDArray[np.float64]


def run(tracks: int = TRACKS, folder: Path = FOLDER) -> Table:
    """Measure both methods of inversion."""
    plans = plan_tracks("test-seen", tracks, SECONDS, group="left-out")
    blocks = [_block(plans[first : first + BLOCK], folder / f"{first:03d}.npy") for first in range(0, tracks, BLOCK)]
    sets = {kind: np.concatenate([block[:, place] for block in blocks]) for place, kind in enumerate(KINDS)}
    owner = np.repeat(np.arange(tracks), sets[KINDS[0]].shape[1])
    rows = {kind: unit_rows(each.reshape(len(owner), -1)) for kind, each in sets.items()}
    true, others = rows[KINDS[0]], rows[KINDS[-1]]

    def kernel(some: Rows, reference: Rows) -> str:
        sums = kernel_sums(some, owner, reference, owner, median_distance(reference))
        return f"{kernel_distance(sums)[0]:.3f}"

    table = []
    for kind in KINDS[:-1]:
        own = rows[kind]
        same = kind == KINDS[0]
        change = frechet_change((true, owner), (own, owner), (others, owner), 0)
        table.append(
            [
                kind,
                "0" if same else _told(frechet_interval(own, owner, true, owner, 0)),
                f"{distance_between(own, others):.4f}",
                "" if same else told(change),
                "0" if same else kernel(own, true),
                kernel(own, others),
            ]
        )
    return Table(
        title="What phase retrieval costs, in FAD and KAD",
        header=[
            "sound",
            "FAD to true phase",
            "FAD to others",
            "less that of true phase",
            "KAD to true",
            "KAD to others",
        ],
        rows=table,
        notes=[
            f"musicnn-msd, {tracks} tiles of preset `mini` of as many renders of held-out pieces with the demo's new "
            "instruments; 95 % intervals. To true phase: against the sounds that the same tiles are pictures of, 0 if "
            "nothing were lost. To others: against other tiles of the same tracks, true phase as well.",
        ],
    )


def _block(plans: list[TrackPlan], path: Path) -> Rows:
    """Return the embeddings of some tracks, (tracks, kinds, windows, 200), from the folder where they are there."""
    if not path.exists():
        embedder = MusicnnEmbedder("msd")
        made = np.stack([[embedder.embed_audio(sound) for sound in _sounds(plan)] for plan in plans])
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, made.astype(np.float64))
    return np.asarray(np.load(path))


def _sounds(plan: TrackPlan) -> Iterator[Float]:
    """Yield a track's first tile with its true phase and inverted by both methods, and its other tile."""
    signal = prepare_signal(*render_track(plan), SPEC)
    first = FIRST_FRAME * SPEC.hop_length
    other = first + SPEC.tile_samples
    levels = encode_clip(cut_clip(signal, first, SPEC.width, SPEC), SPEC)
    yield signal[0, first : first + SPEC.tile_samples]
    yield invert(levels, SPEC, "fast")[0]
    yield invert(levels, SPEC, "best")[0]
    yield signal[0, other : other + SPEC.tile_samples]


def _told(interval: Interval) -> str:
    return f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})"


if __name__ == "__main__":
    print(run().markdown())
