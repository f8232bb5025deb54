"""Which numbers a JSON schema may name, so that an answer can be held to them exactly."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

LARGEST: Final = 2**53
"""Grammars are compiled with 64-bit floats: integers beyond lose their last digits, and some crash the compiler."""

_VALUES: Final = ("const", "enum")
_BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def inexact_number(schema: Any) -> str | None:
    """Say which number of a schema no answer can be held to exactly; None where there is none.

    Everything in the schema is looked at, also what `$ref` may point to: integers among the values of `const` and
    `enum`, and bounds of any kind. Floats among the values stay what they are.
    """
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            for key, value in part.items():
                if (key in _VALUES and _too_large_inside(value)) or (key in _BOUNDS and _too_large(value)):
                    return f"{key!r} names a number beyond ±2⁵³"
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)
    return None


def _too_large_inside(value: Any) -> bool:
    return any(isinstance(leaf, int) and _too_large(leaf) for leaf in _leaves(value))


def _too_large(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) > LARGEST


def _leaves(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)
        else:
            yield part
