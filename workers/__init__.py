"""The processes that poll task queues."""
