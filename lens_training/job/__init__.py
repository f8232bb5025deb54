"""Lens training as workflows: the only part that meets Temporal, and nothing of it meets an array library."""
