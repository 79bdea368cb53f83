"""The domain experiment: compress a language model in several ways, fine-tune each for the tasks, and compare."""
