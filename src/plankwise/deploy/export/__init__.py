"""Exporters: a trained model becomes an artefact for one runtime, which is compared with torch."""
