"""Lets `python -m plankwise` and `accelerate launch -m plankwise` run the command line."""

from plankwise.cli import main

main()
