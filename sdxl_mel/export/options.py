"""The choices of an export, by name; settings and help read them without torch."""

from typing import Literal, get_args

from sdxl_mel.diffusion.samplers import Drawing

Weights = Literal["int8", "fp16", "fp32"]
"""How weights are stored; all are computed in float32."""
LoraMode = Literal["fused", "factors"]
"""A LoRA added into the weights, or beside them, so that the page can scale and exchange it."""
Sampler = Literal["euler", "dpmpp_2m", "ddim"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
"""The samplers that the page has."""
USUAL = Drawing(sampler="dpmpp_2m", steps=10)
"""What the page draws with where the models ask for nothing: in 10 steps as good as Euler in 25."""
PART_BYTES = 24_000_000
"""Larger files are cut into parts of so many bytes: the strictest of the usual hosts takes files of up to 25 MiB."""
LARGEST_MODEL = 2_000_000_000
"""A model is one message of protocol buffers, which ends at 2 GiB."""
