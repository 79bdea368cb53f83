"""Comparing models, or finished runs, of any origin and runtime, on the same examples."""
