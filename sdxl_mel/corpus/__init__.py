"""Music with captions that are true by construction: a score bank, General MIDI instruments, a soundfont."""
