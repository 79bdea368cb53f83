"""Tokenizers: trained on given texts, trimmed to them, or checked against them."""
