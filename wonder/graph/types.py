"""Types written as data: `string`, `number?`, `[billing, sales]`, `{team: [billing, sales], urgent: boolean}`."""

import keyword
from types import GenericAlias
from typing import Any, Literal

from pydantic import ConfigDict, JsonValue, create_model

from wonder.errors import GraphError
from wonder.routing.source import suggestion

PLAIN: dict[str, Any] = {"string": str, "number": float, "integer": int, "boolean": bool, "any": Any}
LIST, OPTIONAL = "[]", "?"
"""After a type: a list of it; it or nothing."""


def type_of(written: JsonValue, place: str) -> Any:
    """The Python type that a description stands for.

    Args:
        written: A name of `PLAIN` with `[]` or `?` behind it, a list of the values there are, or a map of fields.
        place: Where it stands, for the error and the name of the type.

    Raises:
        GraphError: It describes no type.
    """
    if isinstance(written, str):
        return _named(written, place)
    if isinstance(written, list):
        return _listed(written, place)
    if isinstance(written, dict) and written:
        return model_of(written, place)
    raise GraphError(
        f"{place}: {written!r} is no type: write string, number, integer or boolean, a list of the values there are, "
        "or the fields of an object with their types"
    )


def model_of(fields: dict[str, JsonValue], place: str) -> Any:
    """The class of an object with these fields; those whose type ends in `?` may be left out.

    Raises:
        GraphError: A name or a type cannot be.
    """
    found: dict[str, Any] = {}
    for name, written in fields.items():
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise GraphError(f"{place}: no field can be called {name!r}: letters, digits and _, starting with a letter")
        kind = type_of(written, f"{place}.{name}")
        optional = isinstance(written, str) and written.endswith(OPTIONAL)
        found[name] = (kind, None if optional else ...)
    title = "".join(part.capitalize() for part in place.replace(".", " ").replace("_", " ").split())
    return create_model(title, __config__=ConfigDict(extra="ignore"), **found)


def _named(written: str, place: str) -> Any:
    name = written.strip()
    if name.endswith(LIST):
        return GenericAlias(list, (_named(name.removesuffix(LIST), place),))
    if name.endswith(OPTIONAL):
        return _named(name.removesuffix(OPTIONAL), place) | None
    if name not in PLAIN:
        raise GraphError(
            f"{place}: there is no type {written!r}: {suggestion(name, PLAIN)} "
            "(the values of a list, such as [low, high], are written out)"
        )
    return PLAIN[name]


def _listed(values: list[JsonValue], place: str) -> Any:
    kinds = {type(value) for value in values}
    if not values or len(kinds) > 1 or not kinds <= {str, int, bool}:
        raise GraphError(
            f"{place}: {values!r} does not list the values there are: write some of one kind, such as [low, high] "
            '(quote words that YAML takes for something else: "yes", "no", "on")'
        )
    return Literal[tuple(values)]
