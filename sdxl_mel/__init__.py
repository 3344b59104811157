"""Fine-tune Stable Diffusion XL on mel spectrograms and make music with it."""

__version__ = "0.1.0"
