"""A refiner behind a decoder of mini, on the tiles and by the measures of `bench.decoder`.

    python -m bench.refiner --refiner runs/refiner/refiner --steps 1 2 --lora LORA [--vae runs/decoder/vae]

Choose steps on other tiles than these.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from bench.decoder import FOLDER, Way, decoded, run, way_of_vae
from bench.decoder_tiles import SPEC, TRACKS, Tiles
from sdxl_mel.assets import MINI
from sdxl_mel.errors import InputError
from sdxl_mel.files.run import REFINER_NAME
from sdxl_mel.models.base import open_base
from sdxl_mel.models.carried import carried_hash
from sdxl_mel.models.refiner import read_refiner
from sdxl_mel.synthesis.refining import Refining


def way_of_refiner(folder: Path, steps: int, vae: str | None = None) -> Way:
    """Return mini's own decoder, or that of another VAE, and its refiner; the noise of a tile is seeded by its place.

    Raises InputError for a refiner that was made for another VAE.
    """
    refiner = read_refiner(folder)
    if refiner is None:
        raise InputError(f"{folder}: no refiner here; train one with sdxl-mel train --task refiner")
    identity = carried_hash(folder, REFINER_NAME)
    base = open_base("mini", ("vae",), vae=vae)
    found, wanted = refiner.config.vae, base.identity_of("vae")
    if found != wanted:
        raise InputError(f"{folder}: made for the VAE {found[:12]}, not for {wanted[:12]}; give that one with --vae")
    refining = Refining(refiner, steps, identity)
    key = f"{wanted[:12]}-{identity[:12]}-{steps}"
    return Way(f"and {steps} steps", key, partial(_refined, base.vae, refining))


def _refined(vae: object, refining: Refining, latents: Tensor) -> Tiles:
    pictures = decoded(vae, latents)
    return np.stack([refining.refined(each, 0, spec=SPEC, seed=place) for place, each in enumerate(pictures)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--refiner", type=Path, default=MINI, help="folder of a refiner, or of a base that carries one")
    parser.add_argument("--steps", type=int, nargs="+", default=[2])
    parser.add_argument("--vae", help="VAE that it refines the pictures of, in place of mini's own")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where pictures and embeddings are kept")
    parser.add_argument("--tracks", type=int, default=TRACKS)
    parser.add_argument("--lora", type=Path, help="LoRA for the new instruments; without one none are drawn of them")
    parser.add_argument("--real", action="store_true", help="real tiles alone")
    words = parser.parse_args()
    first = way_of_vae(words.vae or "VAE as shipped", words.vae)
    judged = [first, *(way_of_refiner(words.refiner, steps, words.vae) for steps in words.steps)]
    print(run(judged, words.folder, tracks=words.tracks, lora=words.lora, drawn=not words.real).markdown())
