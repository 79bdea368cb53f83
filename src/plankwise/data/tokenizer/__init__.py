"""Tokenizers of our own: trained on given texts, or trimmed to them."""
