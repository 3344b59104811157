"""Numbers of sound: no files, no models."""
