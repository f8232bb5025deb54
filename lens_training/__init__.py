"""Training of what Wonder ships and learns; never imported by a workflow."""
