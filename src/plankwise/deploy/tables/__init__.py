"""Tables of predictions: rows in, rows out, in the same order, and resumable."""
