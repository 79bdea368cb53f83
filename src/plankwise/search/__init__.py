"""Hyperparameter studies: spaces, trials, storage, workers."""
