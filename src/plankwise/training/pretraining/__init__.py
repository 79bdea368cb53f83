"""Pretraining: small encoders from scratch."""
