"""Search under a budget: what is wanted, what a candidate is, how it is measured, and which candidates are best."""
