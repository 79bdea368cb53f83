"""Texts to batches: tokenized, cut, grouped by length, padded; and logits of windows pooled into those of texts."""
