"""A search over the settings of a recipe's steps: what is kept against how fast it is, under a budget."""
