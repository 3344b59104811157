"""A folder of trajectories: where a teacher went from noise, point by point, for each of many prompts.

DIR/trajectories.json             what they are and what made them; written last, so that it vouches for the rest
DIR/trajectories/*, DIR/text/*    shards as those of a cache (`files.cache`), addressed by content
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sdxl_mel.diffusion.options import Prediction, WalkSampler
from sdxl_mel.diffusion.trajectories import Grid
from sdxl_mel.errors import FormatError
from sdxl_mel.files.atomic import write_json
from sdxl_mel.files.cache import Shard, latent_shape, read_shard
from sdxl_mel.files.header import Frozen, read_versioned
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import MelSpec

HEADER_NAME = "trajectories.json"
FORMAT = 1
AGAIN = "run sdxl-mel trajectories again: it makes this shard anew and keeps the others"


class Trajectory(Frozen):
    """One trajectory: the key of its row, that of its text, its words and the seed of its noise."""

    key: str
    text: str
    prompt: str
    seed: int


class TrajectoriesHeader(Frozen):
    """What `trajectories.json` says; `identity` has the hashes of the base's parts, `loras` those of the teacher's."""

    format: int = FORMAT
    spec: MelSpec
    anchor: str
    clip_skip: int
    identity: dict[str, str]
    loras: dict[str, str] = {}
    guidance: float
    sampler: WalkSampler = "ddim"
    prediction: Prediction
    timesteps: tuple[int, ...]
    alphas: tuple[float, ...]
    shards: tuple[str, ...]
    trajectories: tuple[Trajectory, ...]
    record: Record

    @property
    def grid(self) -> Grid:
        """Return the points of every trajectory."""
        return Grid(self.timesteps, self.alphas)


@dataclass(frozen=True)
class Trajectories:
    """An opened folder; the memory it takes does not grow with the size of the pictures."""

    folder: Path
    header: TrajectoriesHeader
    rows: Mapping[str, tuple[Shard, int]]

    def __len__(self) -> int:
        return len(self.header.trajectories)

    def states(self, trajectory: Trajectory, points: Sequence[int]) -> list[Tensor]:
        """Return the latents (4, height, width) at some points, 0 = noise to len(grid) = clean, scaled, float32.

        Raises FormatError for latents of another shape, or that are not finite.
        """
        shard, index = self.rows[trajectory.key]
        noise, states = (shard.file().get_slice(name) for name in ("noise", "states"))
        found = [noise[index] if point == 0 else states[index, point - 1] for point in points]
        for state in found:
            if tuple(state.shape) != latent_shape(self.header.spec) or not bool(state.isfinite().all()):
                raise FormatError(f"{shard.path}: row {index} is no trajectory of this spec; {AGAIN}")
        return found

    def text(self, key: str) -> tuple[Tensor, Tensor]:
        """Return the prompt embeddings (77, width) and the pooled ones (projection,) of a text, float32."""
        shard, index = self.rows[key]
        return shard.row(index)


def write_trajectories(folder: Path, header: TrajectoriesHeader) -> None:
    """Write the header beside shards that exist already."""
    write_json(folder / HEADER_NAME, header.model_dump(mode="json"))


def read_header(folder: Path) -> TrajectoriesHeader:
    """Read `trajectories.json`. Raises InputError where there is none and FormatError where it is damaged."""
    return read_versioned(
        folder / HEADER_NAME,
        TrajectoriesHeader,
        newest=FORMAT,
        what="trajectories",
        missing="no finished trajectories; make them with sdxl-mel trajectories",
        again="run sdxl-mel trajectories again",
    )


def open_trajectories(folder: Path) -> Trajectories:
    """Open a folder of trajectories: the headers of its shards are read and checked, its rows are not.

    Raises InputError for a folder that is none, FormatError for anything missing or damaged.
    """
    header = read_header(folder)
    shards = [read_shard(folder / name, AGAIN) for name in header.shards]
    rows = {key: (shard, index) for shard in shards for index, key in enumerate(shard.header.keys)}
    lost = {key for each in header.trajectories for key in (each.key, each.text)} - rows.keys()
    if lost:
        raise FormatError(f"{folder}: {len(lost)} rows are in no shard; run sdxl-mel trajectories again")
    return Trajectories(folder, header, rows)
