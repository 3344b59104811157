"""Base models and their adapters: what a family is, how files name it, opening, writing and fusing."""
