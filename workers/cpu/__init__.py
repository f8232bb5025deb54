"""The worker that runs workflows and CPU activities."""
