"""Two agents, of which the second believes the first only as far as the first one's trace allows."""
