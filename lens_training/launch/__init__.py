"""Where a training job runs: one protocol, and a launcher for each kind of place."""
