"""What a decoder learns from drawn latents, whose true pictures nobody knows: a discriminator's answers, and a hold."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor
from torch.func import functional_call

from sdxl_mel.files.cache import CachedExample
from sdxl_mel.training.batches import Stream, is_regularized, regularized_before
from sdxl_mel.training.discriminator import Discriminator, decoder_loss, discriminator_loss
from sdxl_mel.training.picture_losses import LEVELS, signals
from sdxl_mel.training.redrawn_latents import RedrawnLatents, cells_of


@dataclass(frozen=True)
class Adversary:
    """A discriminator beside a decoder: both learn in every step, each from what the other was before it.

    A `share` of all slots are clips that were drawn anew. The decoder follows the discriminator with `weight`, after
    `warmup` steps; `hold` is the weight of what changes in the mean of each latent's cell.
    """

    discriminator: Discriminator
    redrawn: RedrawnLatents
    weight: float
    hold: float
    share: float
    warmup: int
    rate: float
    seed: int
    stereo: bool

    @cached_property
    def _stream(self) -> Stream:
        return Stream("redrawn", [clip.repeats for clip in self.redrawn.clips], self.seed)

    def example(self, slot: int) -> CachedExample | None:
        """Return the clip that is drawn anew in a slot, None where a real one stands."""
        if not is_regularized(slot, self.share):
            return None
        return self.redrawn.clips[self._stream[regularized_before(slot, self.share)]]

    def terms(self, made: Tensor, wanted: Tensor, cells: Tensor, step: int) -> dict[str, Tensor]:
        """Return the terms of decoded pictures, (batch,): their sum teaches decoder and discriminator in one way back.

        `wanted` are pictures of music, those of the same clips; both are images (batch, 3, height, width). The
        discriminator is held while it teaches the decoder, and learns from pictures that are held.
        """
        ours, theirs = (signals(images, self.stereo) for images in (made, wanted))
        held = {name: each.detach() for name, each in self.discriminator.named_parameters()}
        weight = self.weight if step >= self.warmup else 0.0
        return {
            "adversarial": weight * decoder_loss(functional_call(self.discriminator, held, (ours,))),
            "hold": self.hold * LEVELS * (cells_of(made) - cells).abs().mean(dim=(1, 2, 3)),
            "discriminator": discriminator_loss(self.discriminator(theirs), self.discriminator(ours.detach())),
        }
