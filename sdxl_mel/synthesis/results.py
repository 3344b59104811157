"""What drawing yields: every sampling step that was taken, and every finished picture."""

from dataclasses import dataclass

from torch import Tensor

from sdxl_mel.arrays import Levels
from sdxl_mel.seeding import derive_seed
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.stitching import Seam
from sdxl_mel.synthesis.best_of import Choice
from sdxl_mel.synthesis.jobs import Job


@dataclass(frozen=True)
class Step:
    """A sampling step that was taken: the `number`-th of all `total` of a call, and the latents after it.

    The latents (batch, 4, height, columns) are those of the sampler, where they are: copying or decoding them is left
    to who wants them.
    """

    number: int
    total: int
    latents: Tensor


@dataclass(frozen=True)
class Result:
    """A finished picture, levels (n_mels, frames, 1 or 3): its job, the seed that drew it, the scores of the choice.

    `seams` are the joins of the views of a long piece, and how much they stand out.
    Where there is `more`, the next result was finished at the same time and follows at once.
    """

    job: Job
    levels: Levels
    spec: MelSpec
    seed: int
    choice: Choice
    seams: tuple[Seam, ...] = ()
    more: bool = False

    @property
    def prompt(self) -> str:
        """Return the prompt as it was given."""
        return self.job.prompt


def candidate_seed(seed: int, candidate: int) -> int:
    """Return the seed of a candidate; the first is the result's own, so that best_of 1 changes nothing."""
    return seed if candidate == 0 else derive_seed(seed, "candidate", candidate)
