"""The stages: each is Config, Report and run(config) -> Report."""
