"""The synthesis engine: prompts to pictures and sound."""
