"""The demonstration: the whole job on rendered music, by the public commands alone."""
