"""The trace engine: generate with a causal language model, and read it meanwhile; no Temporal, no HTTP."""

from wonder.engine.engine import TraceEngine as TraceEngine
from wonder.engine.job import Handle as Handle
from wonder.engine.job import TokenEvent as TokenEvent
from wonder.engine.request import Request as Request

__all__ = ["Handle", "Request", "TokenEvent", "TraceEngine"]
