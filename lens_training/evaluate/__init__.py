"""Judging a lens: what it recovers, beside what would be had without it."""
