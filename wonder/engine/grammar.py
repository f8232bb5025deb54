"""The grammar of an answer: a JSON schema as the text that a model may write, JSON or plain."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from wonder.errors import SettingNotSupported
from wonder.trace.answer_schema import inexact_number

AnswerFormat = Literal["json", "text"]

SPACE: Final = r"[ \t\r\n]"
SOLID: Final = r"[^\s\x1c-\x1f]"
"""What `str.strip` leaves."""
MAX_LEADING_SPACES: Final = 8
"""A model may begin with a space or a line break, as it was trained to."""
MAX_SPACES: Final = 40
"""Between two parts of a document: room for indented JSON, and an end to a model that writes only spaces."""
MAX_DEPTH: Final = 64
"""Of nested schemas, as of nested values in `wonder.trace.spans`."""

_OPTIONS: Final = {"whitespace_flexible": True, "whitespace_pattern": f"{SPACE}{{1,{MAX_SPACES}}}"}
_SCHEMAS: Final = ("items", "additionalProperties", "contains", "not")
_LISTS_OF_SCHEMAS: Final = ("anyOf", "oneOf", "prefixItems")
_TABLES_OF_SCHEMAS: Final = ("properties", "$defs", "definitions", "patternProperties")


def grammar_of(schema: Mapping[str, Any], answer_format: AnswerFormat) -> str:
    """The grammar, in the Lark dialect of llguidance, of the answers that a JSON schema describes.

    Objects take only the properties that they declare, in that order, unless the schema says otherwise: a model that
    invents fields would go on inventing. A text answer is a value without its quotes; several words are alternatives.

    Raises:
        SettingNotSupported: Nested too deeply, a number that cannot be held to exactly, or a text answer of a kind that
            has no plain spelling to hold to.
    """
    if not isinstance(schema, Mapping):
        raise SettingNotSupported(f"answer_schema is {schema!r}, wanted a JSON schema as a dictionary")
    root = _resolved(schema)
    document = _text(root) if answer_format == "text" else None
    if document is None:
        if (reason := inexact_number(schema)) is not None:
            raise SettingNotSupported(
                f"answer_schema cannot be held to exactly ({reason}): name it as a string, or leave the bound out"
            )
        document = "document\ndocument: %json " + _json(_closed(schema))
    return f"start: lead {document}\nlead: /{SPACE}{{0,{MAX_LEADING_SPACES}}}/\n"


def _text(root: Mapping[str, Any]) -> str | None:
    """The rule of a plain-text answer; None where its JSON spelling is its text (numbers, true, null)."""
    values = [root["const"]] if "const" in root else root.get("enum")
    if isinstance(values, list) and values:
        if any(isinstance(value, list | dict) for value in values):
            raise SettingNotSupported(
                "a text answer is one of several words or numbers, and this enum holds arrays or objects: "
                "make the output a pydantic model"
            )
        words = [value if isinstance(value, str) else json.dumps(value) for value in values]
        return "(" + " | ".join(json.dumps(word, ensure_ascii=False) for word in words) + ")"
    if root.get("type") != "string":
        return None
    if "format" in root:
        raise SettingNotSupported(
            f"a plain text of format {root['format']!r} cannot be constrained: put the value into a pydantic model"
        )
    # An answer is read without the spaces around it, so it has none; an empty one is no answer.
    shapes = [f"/{SOLID}((?s:.*){SOLID})?/"]
    if "pattern" in root:
        shapes.append(_pattern(root["pattern"]))
    if "minLength" in root or "maxLength" in root:
        shapes.append(f"/(?s:.{{{_length(root, 'minLength', '0')},{_length(root, 'maxLength', '')}}})/")
    return "words\nwords: WORDS\nWORDS: " + " & ".join(shapes)


def _length(root: Mapping[str, Any], key: str, absent: str) -> str:
    value = root.get(key)
    if value is not None and (not isinstance(value, int) or value < 0):
        raise SettingNotSupported(f"answer_schema has {key} {value!r}: give a number of characters")
    return absent if value is None else str(int(value))


def _pattern(pattern: Any) -> str:
    """A Lark terminal for a pattern that, as in JSON schema, may match anywhere in the text."""
    if not isinstance(pattern, str):
        raise SettingNotSupported(f"answer_schema has the pattern {pattern!r}: give a regular expression as a string")
    inner = pattern.removeprefix("^")
    before = "" if inner != pattern else "(?s:.*)"
    ends = inner.endswith("$") and not inner.endswith("\\$")
    inner = inner.removesuffix("$") if ends else inner
    after = "" if ends else "(?s:.*)"
    slashed = re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", inner).replace("\n", "\\n")
    return f"/{before}({slashed}){after}/"


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    closed = _close(schema, 0)
    return {**closed, "x-guidance": _OPTIONS}


def _close(schema: Any, depth: int) -> Any:
    """The schema with every object closed that does not say whether it is open."""
    if depth > MAX_DEPTH:
        raise SettingNotSupported(f"answer_schema is nested more than {MAX_DEPTH} deep: make it flatter")
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(schema)
    for key in _SCHEMAS:
        if key in closed:
            closed[key] = _close(closed[key], depth + 1)
    for key in _LISTS_OF_SCHEMAS:
        if isinstance(closed.get(key), list):
            closed[key] = [_close(item, depth + 1) for item in closed[key]]
    for key in _TABLES_OF_SCHEMAS:
        if isinstance(closed.get(key), Mapping):
            closed[key] = {name: _close(item, depth + 1) for name, item in closed[key].items()}
    # Not inside or beside allOf: its parts would forbid each other's properties.
    if "properties" in closed and "allOf" not in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a root of nothing but `$ref` stands for."""
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        definitions = schema.get("$defs")
        found = definitions.get(reference.removeprefix("#/$defs/")) if isinstance(definitions, Mapping) else None
        if isinstance(found, Mapping):
            return found
    return schema


def _json(value: Any) -> str:
    # One line: the grammar's language ends a rule at a line break.
    return json.dumps(value, ensure_ascii=True)
