"""`wonder.Graph`: a whole table run as data: actions, rows, reviews and budgets from JSON or YAML."""
