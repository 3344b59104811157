"""Pictures to latents and back: the VAE in float32, and pixels in the order and range it was trained with."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdxl_mel.arrays import Levels
from sdxl_mel.diffusion.long_form import place_views
from sdxl_mel.errors import InputError
from sdxl_mel.execution import stop_if_asked
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec
from sdxl_mel.sound.pixels import quantise

Side = Literal["bottom", "top"]


class Posterior(NamedTuple):
    """What the encoder says of each picture: `mean` and `logvar`, (batch, 4, height / 8, width / 8), unscaled."""

    mean: torch.Tensor
    logvar: torch.Tensor


def images_of(levels: NDArray[np.uint8], low_at: Side) -> torch.Tensor:
    """Return levels (batch, n_mels, frames, 1 or 3), row 0 = lowest band, as images (batch, 3, height, width).

    Images are in -1..1.
    """
    rows = levels[:, ::-1] if low_at == "bottom" else levels
    images = torch.from_numpy(np.ascontiguousarray(rows)).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
    return images.to(torch.float32) / 127.5 - 1.0


def values_of_images(images: torch.Tensor, channels: int, low_at: Side) -> NDArray[np.float32]:
    """Return images as picture values in 0..1, (batch, n_mels, frames, channels); `images_of` is the inverse.

    One channel is the mean of the three that a VAE or a UNet makes of a grey picture.
    """
    values = (images.detach().to("cpu", torch.float32) / 2.0 + 0.5).clamp(0.0, 1.0)
    values = values.mean(dim=1, keepdim=True) if channels == 1 else values
    rows = values.permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(rows[:, ::-1] if low_at == "bottom" else rows)


@torch.no_grad()
def encode(vae: Any, images: torch.Tensor, names: Sequence[str] = ()) -> Posterior:
    """Return the posterior of images (batch, 3, height, width) in -1..1, in float32 on the CPU.

    Raises InputError that names the first picture (one of `names`) for which the VAE makes NaN or infinity.
    """
    # On NVIDIA cards cuDNN would otherwise round the factors of a float32 convolution to 10 bits.
    with torch.backends.cudnn.flags(allow_tf32=False):
        distribution = vae.encode(images.to(vae.device, vae.dtype)).latent_dist
    posterior = Posterior(*(part.to("cpu", torch.float32) for part in (distribution.mean, distribution.logvar)))
    finite = torch.stack([part.flatten(1).isfinite().all(dim=1) for part in posterior]).all(dim=0)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        name = names[first] if names else f"picture {first} of the batch"
        raise InputError(
            f"{name}: the VAE ({str(vae.dtype).removeprefix('torch.')}) makes NaN of it; its weights overflow, as "
            "SDXL's do in float16: give another with --vae, e.g. madebyollin/sdxl-vae-fp16-fix"
        )
    return posterior


@torch.no_grad()
def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Return the images (batch, 3, height, width), about -1..1, of unscaled latents."""
    images: torch.Tensor = vae.decode(latents.to(vae.device, vae.dtype)).sample
    return images


def scale_latents(latents: Tensor, factor: float) -> Tensor:
    """Return latents as a UNet sees them, from a VAE's own; `factor` is the VAE's scaling_factor."""
    return latents * factor


def unscale_latents(latents: Tensor, factor: float) -> Tensor:
    """Return a VAE's own latents from those that a UNet sees; the inverse of `scale_latents`."""
    return latents * (latents.new_tensor(1.0) / factor)


def decode_latents(vae: Any, latents: Tensor, spec: MelSpec) -> list[Levels]:
    """Return the pictures of scaled latents (batch, 4, height, width), one channel each for a mono spec."""
    images = decode(vae, unscale_latents(latents, vae.config.scaling_factor))
    channels = 1 if spec.channels == "grey" else 3
    return [quantise(values) for values in values_of_images(images, channels, spec.low_at)]


def encode_levels(vae: Any, levels: Levels, spec: MelSpec, name: str) -> Tensor:
    """Return the scaled latents (1, 4, height, width) of a picture: the mean of the VAE's posterior."""
    latents = encode(vae, images_of(levels[None], spec.low_at), [name]).mean
    return scale_latents(latents, vae.config.scaling_factor)


def reconstruct(vae: Any, levels: Levels, spec: MelSpec, names: Sequence[str] = ()) -> NDArray[np.float32]:
    """Return the values (batch, n_mels, frames, 1 or 3) that a VAE makes of pictures, levels of that shape.

    Decoded is the mean of the posterior. Raises InputError that names the first picture (of `names`) it overflows on.
    """
    mean, _ = encode(vae, images_of(levels, spec.low_at), names)
    return values_of_images(decode(vae, mean), levels.shape[-1], spec.low_at)


def decode_windows(
    vae: Any, latents: Tensor, spec: MelSpec, overlap: int, need: Callable[[int, int], None] = lambda first, after: None
) -> Iterator[tuple[int, int, Levels]]:
    """Yield (first frame, frames shared with the window before, picture) of a canvas (1, 4, height, columns).

    A window is as wide as a tile, which is what the VAE knows; one is in memory at a time. `need` is called before
    each, with its first column and the one after its last: only these have to be there then.
    """
    width = spec.width // LATENT_FACTOR
    end = 0
    for start in place_views(latents.shape[-1], width, overlap):
        stop_if_asked()
        need(start, min(start + width, latents.shape[-1]))
        levels = decode_latents(vae, latents[..., start : start + width], spec)[0]
        first = start * LATENT_FACTOR
        yield first, max(0, end - first), levels
        end = first + levels.shape[1]
