"""What is learned from people's decisions: maps to probabilities, thresholds, and whether they still hold."""
