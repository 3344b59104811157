"""How good it is: embedders, distances, signal checks."""
