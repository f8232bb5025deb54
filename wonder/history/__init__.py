"""Past decisions, read from Temporal or an export: explained one by one, or taken again by another table."""
