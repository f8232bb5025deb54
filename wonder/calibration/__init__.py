"""From a signal to a probability of being right, and from a target risk to a threshold: plain floats, pure."""
