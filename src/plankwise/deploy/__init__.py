"""Taking models to where they predict: artefacts, runtimes, predictions."""
