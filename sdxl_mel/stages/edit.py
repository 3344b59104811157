"""`sdxl-mel edit`: a given sound varied, drawn anew in regions, made longer, or made a loop."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, StageReport
from sdxl_mel.options import Bits
from sdxl_mel.synthesis.settings import Method, ModelSettings

if TYPE_CHECKING:
    from sdxl_mel.synthesis.edit_session import Generator

EXAMPLES = """\
  sdxl-mel edit song.flac --base mini --prompt "same, with strings" --strength 0.5 --out varied.flac
  sdxl-mel edit song.flac --base mini --region "12-15.5s 200-2000Hz: banjo solo" --region "0:30-0:34" --out new.flac
  sdxl-mel edit song.flac --base mini --prompt "violin, slow" --extend 8 --out longer.wav
  sdxl-mel edit beat.wav --base mini --prompt "drum groove" --loop --out loop.wav"""


class Config(ModelSettings):
    """Edit a sound: vary all of it, draw regions of it anew, add to it, or make it a loop.

    What is not drawn anew keeps the file's own samples. A picture lies beside the sound, and what was drawn anew.
    """

    input: Annotated[Path, Show.POSITIONAL, UNRECORDED]
    """a sound, or a spectrogram picture of ours"""
    out: Annotated[Path, UNRECORDED]
    """the sound: .wav, .flac, .ogg, .opus or .mp3; or .png for a picture alone"""
    prompt: str = ""
    """what to play where a region does not say"""
    region: tuple[str, ...] = ()
    """draw this anew: "12-15.5s 200-2000Hz strength 0.8: banjo solo"; all but the times may be left out"""
    strength: float | None = Field(None, gt=0, le=1)
    """how far to go from what is there: 0.3 keeps most, 1 nothing; none = 0.6 of everything, 1 of regions"""
    extend: float = Field(0.0, ge=0)
    """seconds to add at the end"""
    prepend: float = Field(0.0, ge=0)
    """seconds to add at the start"""
    loop: bool = False
    """make the end lead into the start; with --extend what is added does"""
    negative_prompt: str = ""
    """what to keep away from"""
    seed: int = 0
    """seed of everything that is drawn"""
    bits: Annotated[Bits | None, Show.ADVANCED, UNRECORDED] = None
    """precision of WAV and FLAC; none = as the input has it"""
    method: Annotated[Method, Show.ADVANCED] = "best"
    """how sound is made from the picture"""


class Report(StageReport):
    """What was written, and what was drawn anew in it."""

    out: Path
    seconds: float
    passages: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return a line for each passage that was drawn anew."""
        return "\n".join(
            [f"{self.out}: {self.seconds:.2f} s", *(f"  {passage}" for passage in self.passages), *self.notes]
        )


def run(config: Config, open_generator: "Callable[..., Generator] | None" = None) -> Report:
    """Draw the passages anew and write the sound, its picture and the mask.

    `open_generator` takes the place of `Generator.open` where a base is open already.
    """
    from sdxl_mel.synthesis import edit_session as session

    regions = tuple(session.parse_region(text) for text in config.region)
    edited = session.edit(
        lambda: (open_generator or session.Generator.open)(**config.opened(), keep_base=False),
        config.input,
        config.out,
        session.Edit(
            config.prompt,
            config.strength,
            regions,
            config.prepend,
            config.extend,
            config.loop,
            config.negative_prompt,
        ),
        asked=config.asked(),
        seed=config.seed,
        batch=config.batch,
        method=config.method,
        bits=config.bits,
        settings=config.recorded(),
    )
    return Report(
        out=config.out,
        seconds=edited.seconds,
        passages=edited.passages,
        notes=edited.notes,
        skipped=edited.left_out,
    )
