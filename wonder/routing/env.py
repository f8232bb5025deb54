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

from wonder.routing.syntax import Path, Step, ThresholdKey
from wonder.trace.schema import ThoughtTrace

LARGEST = int(sys.float_info.max)
"""Magnitude up to which an integer is a finite number."""

Thresholds = Mapping[ThresholdKey, float | None]
"""(name, risk), or (name, risk, δ) → the certified number, or None where none could be certified."""


@dataclass(frozen=True, slots=True)
class Env:
    """The values behind the four names of a condition, and the thresholds of the policy."""

    thought_trace: ThoughtTrace | None = None
    output: Any = None
    state: Any = field(default_factory=dict)
    visits: int = 1
    thresholds: Thresholds = field(default_factory=dict)
    no_threshold: Mapping[ThresholdKey, str] = field(default_factory=dict)
    """Why a threshold has no number."""


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
    value = guard(value)
    return None if _is_cut(env, path, value) else value


def _is_cut(env: Env, path: Path, value: Any) -> bool:
    """Whether a list or map of the trace lacks entries, so that nothing can be said of it as a whole.

    An array that moved to an artifact leaves an empty list behind: its length of 0 must not be taken for a fact.
    """
    if path.root != "thought_trace" or len(path.steps) != 1 or not isinstance(value, list | dict):
        return False
    return _missing(env.thought_trace, path.steps[0]) is not None or (
        not value and _missing(env.thought_trace, "trace") is not None
    )


def why_unknown(env: Env, path: Path) -> str:
    """Why `read` gave None."""
    value = getattr(env, path.root)
    for at, step in enumerate(path.steps):
        if value is None:
            break
        value, found = _part(value, step)
        if not found:
            return _told_by_trace(env, path) or _nothing_there(path, at)
    if isinstance(value, float | Decimal):
        return f"{_as_float(value)} is not a finite number"
    if isinstance(value, int):
        return "the number is too large"
    return _told_by_trace(env, path) or "not set"


def _nothing_there(path: Path, at: int) -> str:
    if path.root == "thought_trace" and path.steps[:at] == ("active_concepts",):
        return f"no probe for {path.steps[at]!r} was run"
    parent = path.root + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path.steps[:at])
    return f"{parent} has no {path.steps[at]!r}"


def _told_by_trace(env: Env, path: Path) -> str | None:
    """What the trace itself says about a value that is not there."""
    if path.root != "thought_trace" or not path.steps:
        return None
    reason = getattr(env.thought_trace, "confidence_reason", None) if path.steps[0] == "overall_confidence" else None
    if isinstance(reason, str) and reason:
        return reason
    dotted = ".".join(str(step) for step in path.steps)
    reasons = (_missing(env.thought_trace, name) for name in (dotted, path.steps[0], "trace"))
    return next((reason for reason in reasons if reason), None)


def _missing(trace: Any, name: Step) -> str | None:
    missing = getattr(trace, "missing", None)
    reason = missing.get(name) if isinstance(missing, Mapping) else None
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
