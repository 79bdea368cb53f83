"""Timing models against each other: in turns, on the same texts, in whatever runtime."""
