"""Runs: recipe, task, baseline, methods, evaluation, record."""
