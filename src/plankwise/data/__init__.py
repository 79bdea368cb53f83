"""Data: tasks with splits, labels, metrics and an access rule, and the loaders that make them."""
