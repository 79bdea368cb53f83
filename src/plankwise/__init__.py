"""plankwise makes BERT-class encoders small and fast, and proves what was kept."""

from importlib.metadata import version

__version__ = version("plankwise")
