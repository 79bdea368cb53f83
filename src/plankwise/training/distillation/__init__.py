"""Distillation: teachers, what they are compared on, and the loss against them."""
