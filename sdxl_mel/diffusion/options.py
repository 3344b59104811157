"""The options of the diffusion functions by name, stated once; settings and help read them here without torch."""

from typing import Literal

Prediction = Literal["epsilon", "v_prediction"]
"""What the UNet predicts."""
LossName = Literal["l2", "huber"]
"""The losses of `losses.LOSSES`."""
WalkSampler = Literal["ddim", "dpmpp_2m"]
"""How a teacher walks a trajectory."""
Normalise = Literal["mse", "l1"]
Weighting = Literal["none", "min-snr", "debiased"]
Distribution = Literal["uniform", "logit-normal"]
"""How often each timestep is trained."""
Axis = Literal["step", "timestep"]
"""What a schedule moves along."""
Shape = Literal["constant", "linear", "cosine", "exponential", "snr"]
RateShape = Literal["constant", "linear", "cosine"]
