"""Runs of lens training as clients see them: what starts one, how it stands, what it came to; Temporal runs them."""
