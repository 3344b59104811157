"""The step adapter of the mini base: what it learns from, and the file that ships."""

import re

from sdxl_mel.assets import step_adapter
from sdxl_mel.corpus.instruments import base_pairs
from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.models.base import open_base
from sdxl_mel.models.lora.file import read_lora
from tools.train_mini_steps import captions

MOST_BYTES = 4_000_000


def test_no_held_out_pair_is_among_the_prompts() -> None:
    """Every prompt but those of a sentence names who plays as the tags do."""
    prompts = captions()
    assert len(prompts) == len(set(prompts)) > 800
    assert all(prompts)
    for first, second in base_pairs(held_out=True):
        for pair in (
            f"{first} and {second}",
            f"{second} and {first}",
            f"on {first} over {second}",
            f"on {second} over {first}",
        ):
            assert not [prompt for prompt in prompts if re.search(rf"{pair}(?!\w)", prompt)]


def test_the_adapter_that_ships_is_small_and_for_mini_alone() -> None:
    path = step_adapter("mini")
    assert path is not None and path.stat().st_size <= MOST_BYTES
    lora, base = read_lora(path), open_base("mini", ())
    assert lora.header.drawing == Drawing("ddim", 4, 1.0, "trailing")
    assert lora.header.spec == base.spec
    assert {part: base.identity_of(part) for part in lora.header.base} == dict(lora.header.base)
    assert len(lora.header.base) == 3 and not lora.others
