"""generate: prompts -> tiles or long pieces, and their sound."""

from sdxl_mel.synthesis.results_folder import Report
from sdxl_mel.synthesis.settings import Config

EXAMPLES = """\
  sdxl-mel generate --base mini --prompt "violin ballad with soft piano" --num 4 --out clips
  sdxl-mel generate --base BASE --lora my.safetensors --prompts prompts.csv --out clips
  sdxl-mel generate --base BASE --lora my.safetensors --prompt "slow piano" --seconds 60 --out song
  sdxl-mel generate --base BASE --seconds 60 --schedule "0:00 solo piano | 0:30 drums enter" --out song
  sdxl-mel generate --base mini --prompt "drum groove" --seconds 4 --loop --out loop
  sdxl-mel generate --base mini --prompt "same, with strings" --init clip.wav --strength 0.5 --out variation"""

__all__ = ["EXAMPLES", "Config", "Report", "run"]


def run(config: Config) -> Report:
    """Draw every result that is not there yet; Ctrl-C keeps those that are finished."""
    # Imported here: the models behind it take seconds to load, which --help need not wait for.
    from sdxl_mel.synthesis.generator import generate

    return generate(config)
