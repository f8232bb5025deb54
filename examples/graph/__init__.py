"""Graphs as data: the ticket triage of `examples/ticket_triage`, and one with a ladder, a join and a budget."""
