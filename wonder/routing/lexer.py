"""The words of a condition: numbers, strings, names and operators, each with its place."""

import re
from dataclasses import dataclass
from typing import Literal

from wonder.routing.source import Span, error

MAX_LENGTH = 4096
"""Characters a condition may have."""

TokenKind = Literal["number", "string", "name", "word", "op", "end"]

WORDS = frozenset({"and", "or", "not", "in", "if", "else", "true", "false"})
"""Names with a meaning of their own; a field of such a name is written `["in"]`."""

_SYNONYMS = {"&&": "and", "||": "or", "True": "true", "False": "false"}

_FOREIGN = {
    "None": "None is not a value here: an absent value is unknown; ask known(…)",
    "null": "null is not a value here: an absent value is unknown; ask known(…)",
    "lambda": "functions cannot be defined in a condition",
    "for": "comprehensions are not part of the language",
    "is": "'is' is not part of the language: compare with ==",
    "elif": "'elif' is not part of the language: write … if … else …",
    "**": "powers are not part of the language",
    "//": "whole division is not part of the language: use / and compare",
    "%": "remainders are not part of the language",
    ":=": "assignment is not part of the language",
    "?": "'? :' is not part of the language: write … if … else …",
    ":": "':' is not part of the language: an index is one number or one string",
    "&": "a single & does not join conditions: write and",
    "|": "a single | does not join conditions: write or",
    "~": "'~' is not part of the language: write not",
    "^": "'^' is not part of the language",
    "@": "'@' is not part of the language",
    "{": "maps and sets cannot be written in a condition",
    "}": "maps and sets cannot be written in a condition",
    ";": "a condition is one expression",
    "<>": "'<>' is not part of the language: write !=",
    "===": "'===' is not part of the language: write ==",
    "!==": "'!==' is not part of the language: write !=",
    "=>": "'=>' is not part of the language: write >=",
    "=<": "'=<' is not part of the language: write <=",
    "`": "strings are written in \" or '",
}

RESERVED = WORDS | {name for name in (*_SYNONYMS, *_FOREIGN) if name.isalpha()}
"""Names that cannot follow a dot."""

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<string>["'])
    |(?P<op>!==|===|\*\*|//|:=|<>|=>|=<|<=|>=|==|!=|&&|\|\||[-+*/<>!.,()\[\]=%?:&|~^@{};`])""",
    re.VERBOSE,
)
_NAME_CHARS = re.compile(r"[A-Za-z0-9_]+")
_ESCAPES = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "t": "\t", "r": "\r"}
_CODE_DIGITS = {"u": 4, "U": 8}


@dataclass(frozen=True, slots=True)
class Token:
    """One word: `text` is the operator, the name, or the value of a string; `number` the value of a number."""

    kind: TokenKind
    text: str
    span: Span
    number: int | float = 0


def tokens(source: str) -> list[Token]:
    """All words of a condition, an `end` last.

    Raises:
        ConditionError: A character or a word that the language does not have.
    """
    if len(source) > MAX_LENGTH:
        raise error("", Span(0, 0), f"a condition has at most {MAX_LENGTH} characters, this one has {len(source)}")
    found: list[Token] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            raise error(source, Span(at, at + 1), f"{source[at]!r} is not part of the language")
        token = None if match.lastgroup == "space" else _token(source, match)
        at = token.span.stop if token else match.end()
        if token:
            found.append(token)
    return [*found, Token("end", "", Span(len(source), len(source) + 1))]


def _token(source: str, match: re.Match[str]) -> Token:
    text, span = match.group(), Span(*match.span())
    if match.lastgroup == "number":
        return _number(source, text, span)
    if match.lastgroup == "string":
        return _string(source, span.start)
    text = _SYNONYMS.get(text, text)
    if text in _FOREIGN:
        raise error(source, span, _FOREIGN[text])
    if match.lastgroup == "name" and text.startswith("_"):
        raise error(source, span, f"names starting with _ are private: {text!r} cannot be read")
    if text in WORDS:
        return Token("word", text, span)
    return Token("name" if match.lastgroup == "name" else "op", text, span)


def _number(source: str, text: str, span: Span) -> Token:
    if tail := _NAME_CHARS.match(source, span.stop):
        whole = Span(span.start, tail.end())
        raise error(source, whole, f"{source[whole.start : whole.stop]!r} is not a number: write 12, 0.5 or 5e-3")
    value = float(text)
    if value == float("inf"):
        raise error(source, span, "the number is too large")
    return Token("number", text, span, int(text) if text.isdigit() else value)


def _string(source: str, start: int) -> Token:
    quote, at, chars = source[start], start + 1, list[str]()
    while at < len(source) and source[at] not in (quote, "\n"):
        if source[at] == "\\":
            char, at = _escape(source, at)
        else:
            char, at = source[at], at + 1
        chars.append(char)
    if at >= len(source) or source[at] == "\n":
        raise error(source, Span(start, at), f"the string is not closed: {quote} is missing")
    return Token("string", "".join(chars), Span(start, at + 1))


def _escape(source: str, at: int) -> tuple[str, int]:
    code = source[at + 1 : at + 2]
    if code in _CODE_DIGITS:
        digits = source[at + 2 : at + 2 + _CODE_DIGITS[code]]
        if len(digits) == _CODE_DIGITS[code] and re.fullmatch("[0-9a-fA-F]+", digits) and int(digits, 16) <= 0x10FFFF:
            return chr(int(digits, 16)), at + 2 + len(digits)
    elif code in _ESCAPES:
        return _ESCAPES[code], at + 2
    raise error(source, Span(at, at + 2), "unknown escape in a string: there are \\\\ \\\" \\' \\n \\t \\r \\uXXXX")
