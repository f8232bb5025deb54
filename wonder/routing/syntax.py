"""The tree of a condition, its canonical spelling and its digest."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from wonder.calibration.certify import DEFAULT_DELTA
from wonder.routing.lexer import RESERVED
from wonder.routing.source import NOWHERE, Span

CompareOp = Literal["<", "<=", ">", ">=", "==", "!="]
ArithOp = Literal["+", "-", "*", "/"]
Function = Literal["known", "abs", "len", "min", "max"]

Step = str | int
"""A field or a key by its name, or an entry of a list by its number."""

ThresholdKey = tuple[str, float] | tuple[str, float, float]
"""(name, risk), and δ where it is not the usual one."""

PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written, a minus sign included."""

    value: int | float
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Text:
    """A string as written."""

    value: str
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Bool:
    """`true` or `false`."""

    value: bool
    span: Span = field(default=NOWHERE, compare=False)


Literals = Number | Text | Bool


@dataclass(frozen=True, slots=True)
class Path:
    """`root.step[step]…`."""

    root: str
    steps: tuple[Step, ...] = ()
    span: Span = field(default=NOWHERE, compare=False)
    spans: tuple[Span, ...] = field(default=(), compare=False)
    """Of the root, then of each step."""


@dataclass(frozen=True, slots=True)
class Negative:
    """`-operand`."""

    operand: "Node"
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`left op right`."""

    op: ArithOp
    left: "Node"
    right: "Node"
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Compare:
    """`first op operand op operand …`: all links hold."""

    first: "Node"
    links: tuple[tuple[CompareOp, "Node"], ...]
    span: Span = field(default=NOWHERE, compare=False)

    def pairs(self) -> Iterator[tuple["Node", CompareOp, "Node"]]:
        """The links one by one, each with both sides."""
        left = self.first
        for op, right in self.links:
            yield left, op, right
            left = right


@dataclass(frozen=True, slots=True)
class Items:
    """A written list, only found to the right of `in`."""

    values: tuple[Literals, ...]
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class In:
    """`item in container`: an entry of a list, or a key of a map."""

    item: "Node"
    container: "Node | Items"
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """`not operand`."""

    operand: "Node"
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold; at least two."""

    parts: tuple["Node", ...]
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Or:
    """One part holds; at least two."""

    parts: tuple["Node", ...]
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class If:
    """`then if test else other`."""

    test: "Node"
    then: "Node"
    other: "Node"
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A function of values."""

    function: Function
    arguments: tuple["Node", ...]
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Threshold:
    """The number from which at most a share `risk` of the answers is wrong, with probability 1 − `delta`."""

    name: str
    risk: float
    delta: float = DEFAULT_DELTA
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def key(self) -> ThresholdKey:
        """What it is called in a mapping of thresholds: (name, risk), and δ where it is not the usual one."""
        return (self.name, self.risk) if self.delta == DEFAULT_DELTA else (self.name, self.risk, self.delta)


Node = Literals | Path | Negative | Arithmetic | Compare | In | Not | And | Or | If | Call | Threshold


def children(node: Node) -> tuple[Node, ...]:
    """The parts of a node, left to right."""
    match node:
        case Negative(operand) | Not(operand):
            return (operand,)
        case Arithmetic(_, left, right):
            return (left, right)
        case Compare(first, links):
            return (first, *(operand for _, operand in links))
        case In(item, container):
            return (item,) if isinstance(container, Items) else (item, container)
        case And(parts) | Or(parts):
            return parts
        case If(test, then, other):
            return (test, then, other)
        case Call(_, arguments):
            return arguments
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """A node and everything in it, outermost first."""
    yield node
    for child in children(node):
        yield from walk(child)


# Binding strength, loosest first; a part is put in parentheses where it binds looser than its place demands.
_IF, _OR, _AND, _NOT, _COMPARE, _SUM, _TERM, _UNARY, _PRIMARY = range(9)


def canonical(node: Node) -> str:
    """The one spelling of a tree; reading it gives the same tree again, on every version of Python."""
    return _write(node, _IF)


def digest(text: str) -> str:
    """16 hex digits that name a canonical text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def number_text(value: int | float) -> str:
    """The canonical spelling of a number: `0.70` and `7e-1` are `0.7`, `1.0` is `1`."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return repr(value)


def text_literal(value: str) -> str:
    """A string in double quotes, with everything outside ASCII escaped."""
    return '"' + "".join(_char(char) for char in value) + '"'


def _char(char: str) -> str:
    code = ord(char)
    if char in '"\\':
        return "\\" + char
    if 32 <= code < 127:
        return char
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _step(step: Step) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if is_plain(step) else f"[{text_literal(step)}]"


def is_plain(name: str) -> bool:
    """Whether a name can follow a dot."""
    return bool(PLAIN_NAME.fullmatch(name)) and name not in RESERVED


def _write(node: Node, place: int) -> str:
    strength, text = _spell(node)
    return f"({text})" if strength < place else text


def _spell(node: Node) -> tuple[int, str]:
    match node:
        case Number(value):
            return (_UNARY if value < 0 else _PRIMARY), number_text(value)
        case Text(value):
            return _PRIMARY, text_literal(value)
        case Bool(value):
            return _PRIMARY, "true" if value else "false"
        case Path(root, steps):
            return _PRIMARY, root + "".join(_step(step) for step in steps)
        case Negative(operand):
            return _UNARY, "-" + _write(operand, _UNARY)
        case Arithmetic(op, left, right):
            place = _SUM if op in "+-" else _TERM
            return place, f"{_write(left, place)} {op} {_write(right, place + 1)}"
        case Compare(first, links):
            tail = "".join(f" {op} {_write(operand, _SUM)}" for op, operand in links)
            return _COMPARE, _write(first, _SUM) + tail
        case In(item, container):
            return _COMPARE, f"{_write(item, _SUM)} in {_container(container)}"
        case Not(operand):
            return _NOT, "not " + _write(operand, _NOT)
        case And(parts):
            return _AND, " and ".join(_write(part, _AND + 1) for part in parts)
        case Or(parts):
            return _OR, " or ".join(_write(part, _OR + 1) for part in parts)
        case If(test, then, other):
            return _IF, f"{_write(then, _OR)} if {_write(test, _OR)} else {_write(other, _IF)}"
        case Call(function, arguments):
            return _PRIMARY, f"{function}({', '.join(_write(part, _IF) for part in arguments)})"
        case Threshold(name, risk, delta):
            tail = "" if delta == DEFAULT_DELTA else f", delta={number_text(delta)}"
            return _PRIMARY, f"threshold({text_literal(name)}, risk={number_text(risk)}{tail})"


def _container(container: Node | Items) -> str:
    if isinstance(container, Items):
        return f"[{', '.join(_write(value, _IF) for value in container.values)}]"
    return _write(container, _SUM)
