"""Concept probes: immutable bundles that read a named concept from a hidden state."""
