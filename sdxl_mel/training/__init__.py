"""The training engine: a loop, its state, and what is trained."""
