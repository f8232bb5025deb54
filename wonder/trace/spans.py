"""Where the values of an answer are: character spans of the leaf values of its JSON, and the tokens they cover."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
SCALAR: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")
SPACE: Final = re.compile(r"[ \t\r\n]*")
MAX_DEPTH: Final = 64
MAX_STARTS: Final = 64
"""How many opening brackets are tried as the start of the document; a bound on the work for hostile text."""


@dataclass(frozen=True)
class Span:
    """Characters `start` (included) to `stop` (excluded)."""

    start: int
    stop: int


@dataclass(frozen=True)
class ValueSpans:
    """The leaf values of one answer."""

    values: dict[str, Span] = field(default_factory=dict)
    """Dotted path (`team`, `items.0.name`) → span; strings without their quotes. A plain text has the path `""`."""
    document: Span | None = None
    """The whole JSON document, or the stripped text."""
    reason: str | None = None
    """Why there are no values."""


class _NotJson(Exception):
    pass


def value_spans(text: str, answer_format: Literal["json", "text"]) -> ValueSpans:
    """Find the values of an answer.

    A JSON document may stand after spaces, inside a code fence, and before further words; where several objects or
    arrays can be read, the longest one is the answer.
    """
    if answer_format == "text":
        start = len(text) - len(text.lstrip())
        span = Span(start, max(start, len(text.rstrip())))
        if span.start == span.stop:
            return ValueSpans(reason="the answer is empty")
        return ValueSpans({"": span}, span)
    if (scalar := _bare_scalar(text)).document is not None:
        return scalar  # first: a string may have brackets in it
    best = ValueSpans()
    at, tried = 0, 0
    while tried < MAX_STARTS and (found := re.compile(r"[{\[]").search(text, at)):
        tried += 1
        values: dict[str, Span] = {}
        try:
            stop = _value(text, found.start(), "", values, 0)
        except _NotJson:
            at = found.start() + 1
            continue
        if best.document is None or stop - found.start() > best.document.stop - best.document.start:
            best = ValueSpans(values, Span(found.start(), stop))
        at = stop
    return best if best.document is not None else scalar


def tokens_of(span: Span, token_spans: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The tokens that overlap a value, as `(first, one past the last)`, or None where there are none.

    A token that merges a quote with part of the value belongs to the value; a token without characters (a special
    token) belongs to none. An empty string is what its closing quote says, so that token stands for it.
    """
    stop = max(span.stop, span.start + 1)
    hits = [i for i, (left, right) in enumerate(token_spans) if left < right and left < stop and right > span.start]
    return (hits[0], hits[-1] + 1) if hits else None


def _bare_scalar(text: str) -> ValueSpans:
    start = len(text) - len(text.lstrip())
    values: dict[str, Span] = {}
    try:
        stop = _value(text, start, "", values, 0)
    except _NotJson:
        stop = start
    if stop == start or text[stop:].strip():
        return ValueSpans(reason="no JSON document was found in the answer")
    return ValueSpans(values, Span(start, stop))


def _value(text: str, at: int, path: str, values: dict[str, Span], depth: int) -> int:
    """Read the value that starts at `at`, note its leaves in `values`, and give the position after it."""
    if depth > MAX_DEPTH:
        raise _NotJson
    opening = text[at : at + 1]
    if opening == "{" or opening == "[":
        return _container(text, at, path, values, depth)
    if found := STRING.match(text, at):
        values[path] = Span(found.start() + 1, found.end() - 1)
        return found.end()
    if found := SCALAR.match(text, at):
        values[path] = Span(found.start(), found.end())
        return found.end()
    raise _NotJson


def _container(text: str, at: int, path: str, values: dict[str, Span], depth: int) -> int:
    closing = "}" if text[at] == "{" else "]"
    at = _skip(text, at + 1)
    if text[at : at + 1] == closing:
        return at + 1
    index = 0
    while True:
        key = str(index)
        if closing == "}":
            key, at = _key(text, at)
        child = f"{path}.{key}" if path else key
        for old in [name for name in values if name == child or name.startswith(child + ".")]:
            del values[old]  # of a repeated key the last one counts, as in every JSON reader
        at = _skip(text, _value(text, at, child, values, depth + 1))
        index += 1
        mark = text[at : at + 1]
        if mark == closing:
            return at + 1
        if mark != ",":
            raise _NotJson
        at = _skip(text, at + 1)


def _key(text: str, at: int) -> tuple[str, int]:
    found = STRING.match(text, at)
    if found is None:
        raise _NotJson
    at = _skip(text, found.end())
    if text[at : at + 1] != ":":
        raise _NotJson
    return str(json.loads(found.group())), _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at
