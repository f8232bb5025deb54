"""Lenses in use: a hidden state into words, and back to see how much of it the words say.

What a bundle says of itself (`manifest`), the registry and its gate know no torch; `decoder`, `encoder`, `bundle` do.
"""
