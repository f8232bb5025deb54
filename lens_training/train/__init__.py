"""The training loop of a lens: steps, checkpoints, progress."""
