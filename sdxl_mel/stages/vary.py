"""`sdxl-mel vary`: one prompt with every combination of seeds, guidances, strengths and LoRA scales, on one page."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, StageReport
from sdxl_mel.synthesis.settings import Length, Method, ModelSettings, Output

if TYPE_CHECKING:
    from sdxl_mel.synthesis.variations import Generator

EXAMPLES = """\
  sdxl-mel vary --base mini --prompt "violin, slow" --seeds 0 1 2 --guidances 2 4 8 --out grid
  sdxl-mel vary --base BASE --lora my.safetensors --prompt "slow piano" --scales 0 0.5 1 --out scales
  sdxl-mel vary --base mini --prompt "with strings" --source song.flac --strengths 0.3 0.5 0.7 --out strengths"""


class Config(ModelSettings):
    """Draw variations of a prompt or of a sound, and show them on one page with their distance to the first.

    Interrupted, the same command continues.
    """

    out: Annotated[Path, UNRECORDED]
    """folder for the variations and variations.html"""
    prompt: Annotated[str, UNRECORDED]
    """what to play"""
    seeds: Annotated[tuple[int, ...], UNRECORDED] = (0,)
    """a variation for each seed"""
    guidances: Annotated[tuple[float, ...], UNRECORDED] = ()
    """a variation for each guidance"""
    scales: Annotated[tuple[float, ...], UNRECORDED] = ()
    """a variation for each scale of the LoRAs; 0 = without"""
    source: Annotated[Path | None, UNRECORDED] = None
    """sound or picture to vary"""
    strengths: Annotated[tuple[float, ...], UNRECORDED] = ()
    """a variation of --source for each strength: 0.3 keeps most, 1 nothing"""
    seconds: float | None = Field(None, gt=0)
    """length of each variation; none = one tile, or that of --source"""
    negative_prompt: Annotated[str, UNRECORDED] = ""
    """what to keep away from"""
    overwrite: Annotated[bool, Show.ADVANCED, UNRECORDED] = False
    """replace results of another command in --out"""
    method: Annotated[Method, Show.ADVANCED, UNRECORDED] = "fast"
    """how sound is made from the picture"""


class Report(StageReport):
    """The variations, and where their page is."""

    page: Path
    variations: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return a line for each variation."""
        return "\n".join([f"{self.page}: {len(self.variations)} variations", *self.variations[:20], *self.notes])


def run(config: Config, open_generator: "Callable[..., Generator] | None" = None) -> Report:
    """Draw every variation that is not there yet, and write the page.

    `open_generator` takes the place of `Generator.open` where a base is open already.
    """
    from sdxl_mel.synthesis import variations

    varied = variations.draw_variations(
        lambda: (open_generator or variations.Generator.open)(**config.opened()),
        config.prompt,
        variations.Axes(config.strengths, config.scales, config.guidances, config.seeds),
        Output(config.out, method=config.method, overwrite=config.overwrite),
        negative=config.negative_prompt,
        source=config.source,
        length=Length(config.seconds),
        asked=config.asked(),
        batch=config.batch,
        settings=config.recorded(),
    )
    lines = tuple(f"  {cell.entry.picture}: {cell.words()}, distance {cell.distance:.3f}" for cell in varied.cells)
    return Report(page=config.out / variations.PAGE, variations=lines, notes=varied.notes, skipped=varied.left_out)
