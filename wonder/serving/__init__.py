"""Serving an engine: requests that arrive one by one are answered in batches. Torch is not known here."""
