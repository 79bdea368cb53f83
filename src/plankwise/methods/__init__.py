"""The ways of compressing. Each is one file with its card beside it and one line in the registry."""
