"""What a condition reads from, and how a value is read: totally, with a reason where there is none."""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel

from wonder.routing.syntax import Path, Step
from wonder.trace.schema import ThoughtTrace

LARGEST = int(sys.float_info.max)
"""Magnitude up to which an integer is a finite number."""

Thresholds = Mapping[tuple[str, float], float | None]
"""(name, risk) → the certified number, or None where none could be certified."""


@dataclass(frozen=True, slots=True)
class Env:
    """The values behind the four names of a condition, and the thresholds of the policy."""

    thought_trace: ThoughtTrace | None = None
    output: Any = None
    state: Any = field(default_factory=dict)
    visits: int = 1
    thresholds: Thresholds = field(default_factory=dict)


def guard(value: Any) -> Any:
    """The value as conditions see it; None where it is unknown: NaN and the infinities are.

    Enums count as their values and decimals as floats. Every read and every arithmetic result passes here.
    """
    cls = value.__class__
    if cls is float:
        return value if -math.inf < value < math.inf else None
    if cls is str or cls is bool or value is None:
        return value
    if cls is int:
        # An integer beyond the floats is no finite number of any use, and too long for a record.
        return value if -LARGEST <= value <= LARGEST else None
    if isinstance(value, Enum):
        return guard(value.value)
    if isinstance(value, float | Decimal):
        return guard(_as_float(value))
    if isinstance(value, int):
        return guard(int(value))
    return str(value) if isinstance(value, str) else value


def _as_float(value: float | Decimal) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):  # a signalling NaN
        return math.nan


def read(env: Env, path: Path) -> Any:
    """The guarded value at a path; None where it is unknown. Never raises."""
    value = getattr(env, path.root)
    for step in path.steps:
        value, found = _part(value, step)
        if not found:
            return None
    return guard(value)


def why_unknown(env: Env, path: Path) -> str:
    """Why `read` gave None."""
    value = getattr(env, path.root)
    for at, step in enumerate(path.steps):
        if value is None:
            break
        value, found = _part(value, step)
        if not found:
            return _why_missing(env, path, at)
    if value is None:
        return _why_none(env, path)
    if isinstance(value, float | Decimal):
        return f"{_as_float(value)} is not a finite number"
    return "the number is too large" if isinstance(value, int) else "not set"


def _why_missing(env: Env, path: Path, at: int) -> str:
    if path.root == "thought_trace":
        if path.steps[:at] == ("active_concepts",):
            return _from_trace(env.thought_trace, path.steps[0]) or f"no probe for {path.steps[at]!r} was run"
        if reason := _from_trace(env.thought_trace, path.steps[0]):
            return reason
    parent = path.root + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path.steps[:at])
    return f"{parent} has no {path.steps[at]!r}"


def _why_none(env: Env, path: Path) -> str:
    if path.root == "thought_trace" and path.steps:
        reason = _from_trace(env.thought_trace, path.steps[0])
        return reason or "not set"
    return "not set"


def _from_trace(trace: Any, field_name: Step) -> str | None:
    """What the trace itself says about a field that is empty or partly so."""
    if not isinstance(trace, ThoughtTrace):
        return None
    reason = getattr(trace, "confidence_reason", None) if field_name == "overall_confidence" else None
    missing = getattr(trace, "missing", None)
    if not reason and isinstance(missing, Mapping):
        reason = missing.get(field_name)
    return reason if isinstance(reason, str) else None


def _part(parent: Any, step: Step) -> tuple[Any, bool]:
    """A part of a value and whether it is there; only fields are read, never properties or methods."""
    if isinstance(parent, Mapping):
        return (parent[step], True) if step in parent else (None, False)
    if isinstance(step, int):
        is_list = isinstance(parent, Sequence) and not isinstance(parent, str | bytes)
        return (parent[step], True) if is_list and 0 <= step < len(parent) else (None, False)
    if step in _field_names(parent):
        # `model_construct` and half-built objects may lack a field they declare.
        return getattr(parent, step, None), hasattr(parent, step)
    return None, False


def _field_names(value: Any) -> Set[str]:
    if isinstance(value, BaseModel):
        return {*type(value).model_fields, *(value.__pydantic_extra__ or ())}
    if dataclasses.is_dataclass(value):
        return {item.name for item in dataclasses.fields(value)}
    return frozenset()
