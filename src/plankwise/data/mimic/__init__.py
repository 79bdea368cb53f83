"""MIMIC-III in-hospital mortality: who is in, which text is read, what is filtered, and a synthetic stand-in."""
