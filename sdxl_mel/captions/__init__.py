"""Captions: cleaning, anchors, variants."""
