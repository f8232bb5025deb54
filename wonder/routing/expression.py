"""`E`: conditions written with Python's operators; what comes out is the text of a condition."""

from collections.abc import Sequence
from typing import Any, NoReturn

from wonder.calibration.certify import DEFAULT_DELTA
from wonder.errors import ConditionError
from wonder.routing.syntax import (
    And,
    Arithmetic,
    ArithOp,
    Bool,
    Call,
    Compare,
    CompareOp,
    Function,
    In,
    Items,
    Literals,
    Negative,
    Node,
    Not,
    Number,
    Or,
    Path,
    Text,
    Threshold,
    canonical,
)


class Expression:
    """A piece of a condition; `str(…)` spells it.

    Fields and keys by attribute or index, numbers by `+ - * /`, comparisons by `< <= > >= == !=`, conditions by
    `& | ~` (in parentheses, because these bind tighter than comparisons).
    """

    __slots__ = ("_node",)
    _node: Node

    def __init__(self, node: Node) -> None:
        object.__setattr__(self, "_node", node)

    def __str__(self) -> str:
        return canonical(self._node)

    def __repr__(self) -> str:
        return f"Expression({str(self)!r})"

    def __getattr__(self, name: str) -> "Expression":
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, step: str | int) -> "Expression":
        if not isinstance(self._node, Path):
            raise ConditionError(f"{self} has no parts: only a name can be followed by a field or an index")
        if not (isinstance(step, str) or (type(step) is int and step >= 0)):
            raise ConditionError(f"{self}[{step!r}]: an index is one whole number from 0 or one string")
        return Expression(Path(self._node.root, (*self._node.steps, step)))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise ConditionError(f"{self}.{name} cannot be set: write == to compare")

    def __bool__(self) -> NoReturn:
        raise ConditionError(
            f"{self} has no truth before a trace is read: join with & | ~ instead of and, or, not; "
            "write a chained comparison as two joined by &"
        )

    def __contains__(self, item: object) -> NoReturn:
        raise ConditionError(f"'in' cannot be taken over from Python: write is_in({item}, {self})")

    def __iter__(self) -> NoReturn:
        raise ConditionError(f"{self} cannot be gone through: a condition has no loops")

    __hash__ = None  # type: ignore[assignment]  # == builds an expression, so there is no equality to hash by

    def __lt__(self, other: Any) -> "Expression":
        return self._compare("<", other)

    def __le__(self, other: Any) -> "Expression":
        return self._compare("<=", other)

    def __gt__(self, other: Any) -> "Expression":
        return self._compare(">", other)

    def __ge__(self, other: Any) -> "Expression":
        return self._compare(">=", other)

    def __eq__(self, other: Any) -> "Expression":  # type: ignore[override]  # builds an expression
        return self._compare("==", other)

    def __ne__(self, other: Any) -> "Expression":  # type: ignore[override]  # builds an expression
        return self._compare("!=", other)

    def __and__(self, other: Any) -> "Expression":
        return Expression(And((*_parts(And, self._node), *_parts(And, _node(other)))))

    def __or__(self, other: Any) -> "Expression":
        return Expression(Or((*_parts(Or, self._node), *_parts(Or, _node(other)))))

    def __invert__(self) -> "Expression":
        return Expression(Not(self._node))

    def __neg__(self) -> "Expression":
        return Expression(Negative(self._node))

    def __add__(self, other: Any) -> "Expression":
        return self._arithmetic("+", self._node, _node(other))

    def __radd__(self, other: Any) -> "Expression":
        return self._arithmetic("+", _node(other), self._node)

    def __sub__(self, other: Any) -> "Expression":
        return self._arithmetic("-", self._node, _node(other))

    def __rsub__(self, other: Any) -> "Expression":
        return self._arithmetic("-", _node(other), self._node)

    def __mul__(self, other: Any) -> "Expression":
        return self._arithmetic("*", self._node, _node(other))

    def __rmul__(self, other: Any) -> "Expression":
        return self._arithmetic("*", _node(other), self._node)

    def __truediv__(self, other: Any) -> "Expression":
        return self._arithmetic("/", self._node, _node(other))

    def __rtruediv__(self, other: Any) -> "Expression":
        return self._arithmetic("/", _node(other), self._node)

    def _compare(self, op: CompareOp, other: Any) -> "Expression":
        return Expression(Compare(self._node, ((op, _node(other)),)))

    @staticmethod
    def _arithmetic(op: ArithOp, left: Node, right: Node) -> "Expression":
        return Expression(Arithmetic(op, left, right))


def E(root: str) -> Expression:  # noqa: N802  # reads as a name in formulas
    """A root of conditions: `E("thought_trace").overall_confidence < 0.7`."""
    return Expression(Path(root))


def known(value: Expression) -> Expression:
    """True where a value is known, false where it is not."""
    return _call("known", value)


def absolute(value: Expression) -> Expression:
    """`abs(value)`."""
    return _call("abs", value)


def length(value: Expression) -> Expression:
    """`len(value)` of a list, a map or a string."""
    return _call("len", value)


def smallest(*values: Any) -> Expression:
    """`min(…)`."""
    return _call("min", *values)


def largest(*values: Any) -> Expression:
    """`max(…)`."""
    return _call("max", *values)


def is_in(item: Any, container: Expression | Sequence[str | float]) -> Expression:
    """Whether a list, the keys of a map, or these literals hold the item."""
    if isinstance(container, Expression):
        return Expression(In(_node(item), container._node))
    return Expression(In(_node(item), Items(tuple(_literal(value) for value in container))))


def threshold(name: str, *, risk: float, delta: float = DEFAULT_DELTA) -> Expression:
    """The certified number for a target risk, kept with probability 1 − `delta`."""
    return Expression(Threshold(name, float(risk), float(delta)))


def _call(function: Function, *arguments: Any) -> Expression:
    return Expression(Call(function, tuple(_node(argument) for argument in arguments)))


def _parts(cls: type[And] | type[Or], node: Node) -> tuple[Node, ...]:
    return node.parts if isinstance(node, And | Or) and isinstance(node, cls) else (node,)


def _node(value: Any) -> Node:
    return value._node if isinstance(value, Expression) else _literal(value)


def _literal(value: Any) -> Literals:
    if isinstance(value, bool):
        return Bool(value)
    if isinstance(value, int | float) and abs(value) < float("inf"):
        return Number(value)
    if isinstance(value, str):
        return Text(value)
    raise ConditionError(f"{value!r} cannot stand in a condition: use finite numbers, strings, True and False")
