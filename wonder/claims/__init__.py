"""Claims about a trace: evidence, verdicts, and the validations they rest on. Pure: no Temporal, no arrays."""
