"""Distillation: teachers, the layers that are compared, and the loss."""
