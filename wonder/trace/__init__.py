"""What is read from a model, and where it is kept: pure types, no tensors, no Temporal."""
