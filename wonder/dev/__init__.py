"""The local stack: a Temporal server and both workers in one process tree."""
