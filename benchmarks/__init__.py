"""Measurements: one script per subject, all rows printed by `make bench`."""
