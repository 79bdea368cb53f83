"""Qualitative error analysis: errors of a baseline and of a compressed model, labelled by people and compared."""
