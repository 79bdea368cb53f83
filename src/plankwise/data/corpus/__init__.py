"""Corpora: running text read as a stream, kept on disk, and cut into blocks of token ids."""
