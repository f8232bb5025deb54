"""Human review: one durable workflow per item that waits for a person."""
