"""Architectures: where their parts are, how to cut and rebuild them, how to load and save them, what they cost."""
