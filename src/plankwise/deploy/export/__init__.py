"""Exporters: a trained model becomes an artefact in one runtime, and is held against torch."""
