"""Models that turn sound and text into vectors."""
