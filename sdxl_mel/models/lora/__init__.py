"""LoRA: the arithmetic, layers in a model, and files in every dialect."""
