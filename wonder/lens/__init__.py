"""Lenses in use: a hidden state into words, and back to see how much of it the words say; torch lives here."""
