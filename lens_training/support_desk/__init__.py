"""Trains the embedded model on the support-desk world, measures it and writes its card."""
