"""Loaders of tasks: tables, datasets of the Hub, and corpora that their organisers publish as files."""
