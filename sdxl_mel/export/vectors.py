"""Test vectors of an export: what tokens, seeds, noise, samplers and models give, for who writes another runtime.

The page tests itself with them before it trusts a graphics card.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_mel.diffusion.long_form import moved, place_views
from sdxl_mel.diffusion.sampling import draw_noise, sample, set_steps
from sdxl_mel.export.manifest import Drawn
from sdxl_mel.export.options import SAMPLERS
from sdxl_mel.export.runner import Exported, scheduler_of, sizes_of
from sdxl_mel.seeding import derive_seed, torch_generator

TEXTS = (
    "",
    "mel spectrogram, violin ballad with soft piano, slow, emotional",
    "Rock'n'roll: 12-bar blues, don't stop; 120 BPM (live!)",
    "naïve café, Ångström, Dvořák",
    "ΟΔΥΣΣΕΥΣ, Straße, İstanbul, ǅ",
    "ﬁne ligature, ½ tempo, x², Ⅻ",
    "ピアノ、バイオリン 三味線",
    "🎻🎹 family 👩‍👩‍👧 flag 🇫🇮",
    "a\u0300 against à, a\u200bb, a\u00a0b, tab\tnew\nline\r\x0b\x0c end",
    "!!! ... ??? <|endoftext|> after the end <|startoftext|>",
    "  many   spaces  ",
    "\ufeffmark, \u202eright to left\u202c, nul \x00, \ufffd",
    "_underscores_and-hyphens/slashes\\back",
    "word " * 100,
)
"""Captions, and what has gone wrong in tokenizers: case, normal forms, added tokens, white space, length."""
SEEDS: tuple[tuple[int | str, ...], ...] = (
    (0, "noise"),
    (1, "noise"),
    (2**62, "steps"),
    (-5, "view", 3),
    (7, "swap", 0),
    (0, "é", "", 1),
)
STEPS = (2, 10, 25)
PICTURE_STEPS = 2
TIMESTEP = 601.0


def vectors(exported: Exported) -> dict[str, Any]:
    """Return the vectors of an export as JSON; arrays are base64 of little-endian numbers."""
    return {
        "tokens": [*_tokens(exported)],
        "seeds": [{"of": list(of), "seed": str(_derived(of))} for of in SEEDS],
        "noise": [_noise(seed, shape) for seed in (0, 1, 2**53) for shape in ((3,), (4, 2, 8), (4, 16, 32))],
        "sampling": [_sampling(exported, sampler, steps) for sampler in SAMPLERS for steps in STEPS],
        "views": [_views(*each) for each in ((100, 32, 16, False), (96, 32, 16, True), (250, 32, 8, False))],
        "unet": _unet(exported),
        "picture": _picture(exported),
    }


def _tokens(exported: Exported) -> Iterator[dict[str, Any]]:
    for text, ids, ids_2 in zip(TEXTS, *exported.tokens(TEXTS)):
        yield {"text": text, "ids": ids.tolist(), "ids_2": ids_2.tolist()}


def _derived(of: Sequence[int | str]) -> int:
    seed, *what = of
    return derive_seed(int(seed), *what)


def _noise(seed: int, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"seed": seed, "shape": list(shape), "values": _base64(draw_noise([seed], shape, "cpu")[0].numpy())}


def _sampling(exported: Exported, sampler: str, steps: int) -> dict[str, Any]:
    """Return the timesteps of a sampler, and where it leads where the model predicts half of what it is given."""
    scheduler = scheduler_of(exported.description.scheduler, sampler)
    timesteps = set_steps(scheduler, steps, "cpu").tolist()
    latents = sample(scheduler, steps, draw_noise([0], (4, 2, 8), "cpu"), lambda x, t, _: x * 0.5, seeds=[0])
    return {"sampler": sampler, "steps": steps, "timesteps": timesteps, "latents": _base64(latents.numpy())}


def _views(length: int, width: int, overlap: int, loop: bool) -> dict[str, Any]:
    starts = place_views(length, width, overlap, loop)
    walk = [moved(starts, width, length, torch_generator(0, "swap", step)) for step in range(3)]
    return {"length": length, "width": width, "overlap": overlap, "loop": loop, "starts": starts, "moved": walk}


def _unet(exported: Exported) -> dict[str, Any]:
    """Return the UNet's prediction from noise at one timestep."""
    described, text, seed = exported.description, TEXTS[1], 1
    latent = described.latent
    ids, ids_2 = exported.tokens([text])
    hidden, pooled = exported.models.text({"ids": ids, "ids_2": ids_2})
    inputs = {
        "latents": draw_noise([seed], (latent.channels, latent.height, latent.columns), "cpu").numpy(),
        "timestep": np.array([TIMESTEP], np.float32),
        "hidden": hidden,
        "pooled": pooled,
        "sizes": sizes_of(described.spec, 1),
    }
    return {"text": text, "seed": seed, "timestep": TIMESTEP, "noise": _base64(exported.models.unet(inputs)[0])}


def _picture(exported: Exported) -> dict[str, Any]:
    """Return a picture drawn in few steps, its levels row by row from the top, channels last."""
    text, seed = TEXTS[1], 3
    drawing = Drawn(sampler="euler", steps=PICTURE_STEPS, guidance=exported.description.drawing.guidance)
    values = exported.values(text, seed, drawing)
    levels = np.rint(values * 255).astype(np.uint8)
    shown = {"text": text, "seed": seed, "drawing": drawing.model_dump(), "shape": list(levels.shape)}
    return {**shown, "levels": _base64(levels)}


def _base64(array: NDArray[Any]) -> str:
    stored = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return b64encode(np.ascontiguousarray(stored).tobytes()).decode()
