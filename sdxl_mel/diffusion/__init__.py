"""Numbers of diffusion: no files, no sound."""
