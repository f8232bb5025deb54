"""Compressors: a hidden state as a few numbers from which every registered probe can be read again."""
