"""Studies: recipe to record to report, and the comparisons and timings that stand in them."""
