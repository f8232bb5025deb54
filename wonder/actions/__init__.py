"""Actions: what a model is asked, and how a workflow asks it."""
