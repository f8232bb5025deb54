"""Temporal workflows that see what an open-weight model was thinking, and route on it."""
