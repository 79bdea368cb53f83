"""The user's own files as a task for a fine-tuned classifier: guessed columns, labels matched by name, and parts."""
