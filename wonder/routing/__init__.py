"""Routing: conditions over a trace, tables of transitions, decisions. Pure functions; Temporal is not known here."""
