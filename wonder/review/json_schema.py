"""Does a JSON value fit a JSON schema? The part of the standard that pydantic writes, in plain Python.

The review workflow refuses a bad edit before it is recorded, so this runs inside workflows: no dependency, no I/O.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from pydantic import JsonValue, TypeAdapter, ValidationError

Schema = Mapping[str, Any] | bool

MAX_PROBLEMS = 20

_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: not isinstance(v, bool) and (isinstance(v, int) or (isinstance(v, float) and v.is_integer())),
    "number": lambda v: not isinstance(v, bool) and isinstance(v, int | float),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}
_LIMITS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (operator.ge, "at least"),
    "maximum": (operator.le, "at most"),
    "exclusiveMinimum": (operator.gt, "more than"),
    "exclusiveMaximum": (operator.lt, "less than"),
}
_FORMATS: dict[str, TypeAdapter[Any]] = {
    "date-time": TypeAdapter(datetime),
    "date": TypeAdapter(date),
    "time": TypeAdapter(time),
    "duration": TypeAdapter(timedelta),
    "uuid": TypeAdapter(UUID),
}


def problems(value: JsonValue, schema: Schema) -> list[str]:
    """What is wrong with a value: one sentence each, with the path it is about; empty if it fits.

    Keywords outside the supported part are taken as remarks, as the standard asks.
    """
    root = schema if isinstance(schema, Mapping) else {}
    return _check(value, schema, root, "")[:MAX_PROBLEMS]


def _check(value: Any, schema: Schema, root: Mapping[str, Any], path: str) -> list[str]:
    if schema is True:
        return []
    if schema is False:
        return [f"{_at(path)} is not allowed"]
    found: list[str] = []
    if "$ref" in schema:
        found += _check(value, _resolve(schema["$ref"], root), root, path)
    if (wanted := schema.get("type")) is not None:
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        if not any(_TYPES[name](value) for name in names if name in _TYPES):
            return [*found, f"{_at(path)} must be {_or(names)}, not {_shown(value)}"]
    found += _values(value, schema, path)
    found += _combined(value, schema, root, path)
    if isinstance(value, str):
        found += _string(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found += _number(value, schema, path)
    elif isinstance(value, list):
        found += _array(value, schema, root, path)
    elif isinstance(value, dict):
        found += _object(value, schema, root, path)
    return found


def _resolve(ref: str, root: Mapping[str, Any]) -> Schema:
    """Follow `#/$defs/Name`; anything else allows everything."""
    target: Any = root
    if not ref.startswith("#"):
        return True
    for part in ref.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, Mapping) or key not in target:
            return True
        target = target[key]
    return target if isinstance(target, Mapping | bool) else True


def _values(value: Any, schema: Mapping[str, Any], path: str) -> list[str]:
    if "const" in schema and not _same(value, schema["const"]):
        return [f"{_at(path)} must be {_shown(schema['const'])}, not {_shown(value)}"]
    if "enum" in schema and not any(_same(value, option) for option in schema["enum"]):
        return [f"{_at(path)} must be one of {', '.join(_shown(o) for o in schema['enum'])}, not {_shown(value)}"]
    return []


def _combined(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], path: str) -> list[str]:
    found = [problem for part in schema.get("allOf", ()) for problem in _check(value, part, root, path)]
    for keyword in ("anyOf", "oneOf"):
        if keyword not in schema:
            continue
        tried = [_check(value, option, root, path) for option in _options(value, schema, keyword)]
        fits = sum(not problem for problem in tried)
        if fits == 0:
            # The option that came closest says most about what the person meant.
            closest = min((t for t in tried if t), key=len, default=[f"{_at(path)} is not allowed"])
            found += (
                closest if len(tried) == 1 else [f"{_at(path)} fits none of {len(tried)} forms: {'; '.join(closest)}"]
            )
        elif keyword == "oneOf" and fits > 1:
            found.append(f"{_at(path)} fits {fits} forms that exclude each other")
    if "not" in schema and not _check(value, schema["not"], root, path):
        found.append(f"{_at(path)} has a form that is excluded")
    return found


def _options(value: Any, schema: Mapping[str, Any], keyword: str) -> Sequence[Schema]:
    """The forms to try; a discriminator picks the only one, for a better message."""
    options: Sequence[Schema] = schema[keyword]
    discriminator = schema.get("discriminator")
    if isinstance(discriminator, Mapping) and isinstance(value, dict):
        tag = value.get(discriminator.get("propertyName", ""))
        ref = discriminator.get("mapping", {}).get(tag) if isinstance(tag, str) else None
        if ref is not None:
            return [{"$ref": ref}]
    return options


def _string(value: str, schema: Mapping[str, Any], path: str) -> list[str]:
    found = _bounds(len(value), schema, path, "minLength", "maxLength", "characters")
    pattern = schema.get("pattern")
    if pattern is not None and not _matches(pattern, value):
        found.append(f"{_at(path)} must match {pattern!r}, and {_shown(value)} does not")
    if (adapter := _FORMATS.get(schema.get("format", ""))) is not None:
        try:
            adapter.validate_python(value)
        except ValidationError:
            found.append(f"{_at(path)} must be a {schema['format']}, not {_shown(value)}")
    return found


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return True  # a pattern of another dialect: the type itself checks the value again


def _number(value: float, schema: Mapping[str, Any], path: str) -> list[str]:
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{_at(path)} must be a finite number"]
    found = []
    for keyword, (holds, words) in _LIMITS.items():
        bound = schema.get(keyword)
        if bound is not None and not holds(value, bound):
            found.append(f"{_at(path)} must be {words} {bound}, not {value}")
    step = schema.get("multipleOf")
    if step and not math.isclose(value / step, round(value / step), rel_tol=0, abs_tol=1e-9):
        found.append(f"{_at(path)} must be a multiple of {step}, not {value}")
    return found


def _array(value: list[Any], schema: Mapping[str, Any], root: Mapping[str, Any], path: str) -> list[str]:
    found = _bounds(len(value), schema, path, "minItems", "maxItems", "items")
    first = schema.get("prefixItems", ())
    for index, item in enumerate(value):
        part: Schema = first[index] if index < len(first) else schema.get("items", True)
        found += _check(item, part, root, f"{path}[{index}]")
    if schema.get("uniqueItems") and any(_same(a, b) for i, a in enumerate(value) for b in value[:i]):
        found.append(f"{_at(path)} must not hold the same item twice")
    return found


def _object(value: dict[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], path: str) -> list[str]:
    found = _bounds(len(value), schema, path, "minProperties", "maxProperties", "entries")
    known = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    found += [f"{_join(path, name)} is missing" for name in schema.get("required", ()) if name not in value]
    for name, item in value.items():
        if "propertyNames" in schema:
            found += _check(name, schema["propertyNames"], root, f"name {name!r} in {_at(path)}")
        if name in known:
            found += _check(item, known[name], root, _join(path, name))
        matching = [part for pattern, part in patterns.items() if _matches(pattern, name)]
        for part in matching:
            found += _check(item, part, root, _join(path, name))
        if name not in known and not matching:
            extra = schema.get("additionalProperties", True)
            if extra is False:
                found.append(f"{_join(path, name)} is not a field; there are {', '.join(known) or 'none'}")
            else:
                found += _check(item, extra, root, _join(path, name))
    return found


def _bounds(count: int, schema: Mapping[str, Any], path: str, low: str, high: str, unit: str) -> list[str]:
    if low in schema and count < schema[low]:
        return [f"{_at(path)} must have at least {schema[low]} {unit}, not {count}"]
    if high in schema and count > schema[high]:
        return [f"{_at(path)} must have at most {schema[high]} {unit}, not {count}"]
    return []


def _same(a: Any, b: Any) -> bool:
    """JSON equality: `True` is not `1`, while `1` is `1.0`."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)


def _at(path: str) -> str:
    return path or "the answer"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _or(names: list[str]) -> str:
    words = [f"an {name}" if name[0] in "aio" else "null" if name == "null" else f"a {name}" for name in names]
    return " or ".join(words)


def _shown(value: Any) -> str:
    """A value as a person would type it, cut short."""
    text = TypeAdapter(Any).dump_json(value).decode()
    return text if len(text) <= 80 else text[:79] + "…"
