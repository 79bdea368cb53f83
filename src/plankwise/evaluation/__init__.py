"""Metrics, intervals, comparisons and benchmarks of models."""
