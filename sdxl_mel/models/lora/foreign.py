"""What a file is that is no LoRA we can read, told from the names of its tensors, and what to do with it."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sdxl_mel.models.families import TITLES
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.lora.names import parse_module, rewritten

SHOWN = 3
EMBEDDING = re.compile(r"bundle_emb\..+|emb_params|clip_[lg]|string_to_param\..+|text_encoders_[01]|<.+>")
"""Textual inversions, which some programs put into the file of a LoRA; they are read by nothing here."""

GIVE_OTHER = f"give a LoRA made for {TITLES}"
MERGE_FIRST = (
    "what is read is LoRA, DoRA, LoHa, LoKr and whole differences: merge it into a base with the program that made it, "
    "then `lora extract`"
)


class Foreign(NamedTuple):
    """A kind of file: names that only it has, what it is, and what to do."""

    names: re.Pattern[str]
    what: str
    advice: str


FOREIGN = tuple(
    Foreign(re.compile(names), what, advice)
    for names, what, advice in (
        # Other ways to adapt the same models.
        (r"\.oft_(blocks|diag|r)\b|\.oft_R\.", "OFT, which rotates weights", MERGE_FIRST),
        (r"\.(a1|a2|b1|b2|bm)\.weight$", "GLoRA", MERGE_FIRST),
        (r"\.on_input$", "(IA)^3, which scales activations", MERGE_FIRST),
        (r"\.vera_lambda_", "VeRA, whose shared matrices are not in the file", MERGE_FIRST),
        (r"\.(lora_up|lora_down|lora_A|lora_B)(\.\w+)?\.bias$", "LoRA with biases of its own", MERGE_FIRST),
        # LoRAs of other models.
        (r"(double|single)_(transformer_)?blocks|lora_transformer_single", "a LoRA of FLUX", GIVE_OTHER),
        (r"joint_blocks|(lora_te3_|text_encoder_3\.)", "a LoRA of SD 3", GIVE_OTHER),
        (r"lora_prior_|(^|\.)prior\.", "a LoRA of Stable Cascade", GIVE_OTHER),
        (r"motion_modules", "a LoRA of AnimateDiff's motion modules", GIVE_OTHER),
        (
            r"^(lora_transformer_|transformer\.(?!resblocks)|diffusion_model\.(blocks|layers|transformer_blocks)\.)",
            "a LoRA of a model with a transformer in place of the UNet",
            GIVE_OTHER,
        ),
        # No LoRAs.
        (r"^lora_controlnet$|^control_model\.|^controlnet_|^lllite_|^input_hint_block", "a ControlNet", GIVE_OTHER),
        (r"^image_proj\b|^ip_adapter\b", "an IP-Adapter", GIVE_OTHER),
        (
            r"^(model\.diffusion_model|conditioner|cond_stage_model)\.(?!.*lora).*\.(weight|bias)$",
            "a whole model, no LoRA",
            "give it as --base, or make a LoRA of it with `lora extract`",
        ),
        (
            r"^(unet\.)?(conv_in|down_blocks)\.(?!.*lora).*(weight|bias)$",
            "a UNet, no LoRA",
            "put it into a diffusers folder and give that as --base, or make a LoRA of it with `lora extract`",
        ),
        (r"^(first_stage_model\.)?(encoder|decoder)\.", "a VAE, no LoRA", "give it as --vae"),
        (r"^text_model\.", "a text encoder or its LoRA, which could be either of two", GIVE_OTHER),
    )
)
"""The first row that fits any name counts; names that are read already are not looked at."""


def refusal(path: Path, unmatched: Sequence[str], total: int, architecture: Architecture) -> str:
    """Return why a file is refused: what it is, the names that show it, and what to do."""
    if not total:
        return f"{path}: holds no tensor; give a LoRA file"
    for foreign in FOREIGN:
        names = [name for name in unmatched if foreign.names.search(name)]
        if names:
            return f"{path}: {foreign.what} ({some(names)}); {foreign.advice}"
    if all(EMBEDDING.fullmatch(name) for name in unmatched) and len(unmatched) == total:
        return f"{path}: an embedding (textual inversion), no LoRA ({some(unmatched)}); {GIVE_OTHER}"
    title = architecture.family.title
    ours = [name for name in unmatched if _starts_with_a_module(name, architecture)]
    if ours:
        return (
            f"{path}: a LoRA of {title} in a spelling that is not known ({some(ours)}); write it with kohya's or "
            "diffusers' names in the program that made it"
        )
    return (
        f"{path}: {len(unmatched)} of {total} tensors belong to no module of {title}: {some(unmatched)}; {GIVE_OTHER}"
    )


def _starts_with_a_module(name: str, architecture: Architecture) -> bool:
    words = rewritten(name).split(".")
    return any(parse_module(".".join(words[:end]), architecture) for end in range(1, len(words)))


def some(names: Iterable[str]) -> str:
    """Return the first names, and dots where there are more."""
    first = list(names)
    return ", ".join([*first[:SHOWN], *(["..."] if len(first) > SHOWN else [])])
