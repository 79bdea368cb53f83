"""Training and scoring. Methods call `fit`; `fit` knows no method."""
