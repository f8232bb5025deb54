"""The worker that has a model loaded."""
