"""From the text of a condition to its tree: a recursive descent over the grammar of `docs/conditions.md`."""

from typing import cast

from wonder.calibration.certify import DEFAULT_DELTA
from wonder.errors import ConditionError
from wonder.routing.lexer import Token, tokens
from wonder.routing.source import Span, error, suggestion
from wonder.routing.syntax import (
    And,
    Arithmetic,
    ArithOp,
    Bool,
    Call,
    Compare,
    CompareOp,
    Function,
    If,
    In,
    Items,
    Literals,
    Negative,
    Node,
    Not,
    Number,
    Or,
    Path,
    Step,
    Text,
    Threshold,
)

MAX_OPERATIONS = 64
"""Operators `+ - * /` in one condition."""

MAX_DEPTH = 32
"""Parentheses, functions and `not` inside one another; keeps every walk over a tree far from Python's own limit."""

COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
FUNCTIONS = ("known", "abs", "len", "min", "max", "threshold")
_MANY = ("min", "max")


def parse(source: str) -> Node:
    """The tree of a condition.

    Raises:
        ConditionError: The text is not a condition; the message points at the place.
    """
    return _Parser(source).condition_to_the_end()


class _Parser:
    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = tokens(source)
        self.at = 0
        self.depth = 0
        self.operations = 0

    @property
    def here(self) -> Token:
        return self.tokens[self.at]

    def fail(self, span: Span, message: str) -> ConditionError:
        return error(self.source, span, message)

    def is_at(self, *texts: str) -> bool:
        return self.here.kind in ("op", "word") and self.here.text in texts

    def take(self) -> Token:
        token = self.here
        if token.kind != "end":
            self.at += 1
        return token

    def accept(self, *texts: str) -> Token | None:
        return self.take() if self.is_at(*texts) else None

    def expect(self, text: str, after: str) -> Token:
        if found := self.accept(text):
            return found
        raise self.unexpected(f"{text!r} is missing after {after}")

    def unexpected(self, wanted: str) -> ConditionError:
        token = self.here
        if token.kind == "end":
            return self.fail(token.span, f"the condition ends too early: {wanted}")
        if self.is_at("="):
            return self.fail(token.span, "a single = does not compare: write ==")
        return self.fail(token.span, f"unexpected {self.source[token.span.start : token.span.stop]!r}: {wanted}")

    def at_end(self) -> bool:
        return self.here.kind == "end"

    def condition_to_the_end(self) -> Node:
        if self.at_end():
            raise self.fail(self.here.span, "the condition is empty: write an expression, or otherwise")
        node = self.condition()
        if self.at_end():
            return node
        if self.is_at("(") and isinstance(node, Path):
            raise self.not_callable(node)
        if self.is_at(".", "["):
            raise self.fail(self.here.span, "only a name can be followed by . or [")
        raise self.unexpected("an operator such as and, or, < was expected")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.fail(self.here.span, f"nested more than {MAX_DEPTH} deep: split the condition into rows")

    def condition(self) -> Node:
        self.deeper()
        then = self.or_expr()
        if self.accept("if"):
            test = self.or_expr()
            self.expect("else", "the test of 'if'")
            other = self.condition()
            then = If(test, then, other, then.span.to(other.span))
        self.depth -= 1
        return then

    def or_expr(self) -> Node:
        parts = [self.and_expr()]
        while self.accept("or"):
            parts.append(self.and_expr())
        if len(parts) == 1:
            return parts[0]
        flat = tuple(inner for part in parts for inner in (part.parts if isinstance(part, Or) else (part,)))
        return Or(flat, parts[0].span.to(parts[-1].span))

    def and_expr(self) -> Node:
        parts = [self.not_expr()]
        while self.accept("and"):
            parts.append(self.not_expr())
        if len(parts) == 1:
            return parts[0]
        flat = tuple(inner for part in parts for inner in (part.parts if isinstance(part, And) else (part,)))
        return And(flat, parts[0].span.to(parts[-1].span))

    def not_expr(self) -> Node:
        if token := self.accept("not"):
            self.deeper()
            operand = self.not_expr()
            self.depth -= 1
            return Not(operand, token.span.to(operand.span))
        return self.comparison()

    def comparison(self) -> Node:
        first = self.sum()
        if self.is_at("in", "not"):
            return self.membership(first)
        links: list[tuple[CompareOp, Node]] = []
        while op := self.accept(*COMPARISONS):
            links.append((cast(CompareOp, op.text), self.sum()))
        if not links:
            return first
        if self.is_at("in"):
            raise self.fail(self.here.span, "'in' cannot be chained with a comparison: join them with and")
        return Compare(first, tuple(links), first.span.to(links[-1][1].span))

    def membership(self, item: Node) -> Node:
        negated = self.accept("not")
        self.expect("in", "'not'" if negated else "the value")
        container = self.items() if self.is_at("[") else self.sum()
        node = In(item, container, item.span.to(container.span))
        if self.is_at("in", *COMPARISONS):
            raise self.fail(self.here.span, "'in' cannot be chained with a comparison: join them with and")
        # `a not in b` is `not a in b` in three-valued logic too, so the tree needs only one of them.
        return Not(node, node.span) if negated else node

    def items(self) -> Items:
        start = self.take().span
        values = [self.list_item()]
        while self.accept(","):
            values.append(self.list_item())
        return Items(tuple(values), start.to(self.expect("]", "the list").span))

    def list_item(self) -> Literals:
        if self.is_at("]"):
            raise self.fail(self.here.span, "the list needs a literal here")
        sign = self.accept("-")
        literal = self.literal()
        if literal is None:
            raise self.unexpected("a list holds numbers, strings, true and false only")
        if sign is None:
            return literal
        if not isinstance(literal, Number):
            raise self.fail(literal.span, "only a number can be negative")
        return Number(-literal.value, sign.span.to(literal.span))

    def sum(self) -> Node:
        left = self.term()
        while op := self.accept("+", "-"):
            left = self.arithmetic(op, left, self.term())
        return left

    def term(self) -> Node:
        left = self.unary()
        while op := self.accept("*", "/"):
            left = self.arithmetic(op, left, self.unary())
        return left

    def arithmetic(self, op: Token, left: Node, right: Node) -> Node:
        self.operations += 1
        if self.operations > MAX_OPERATIONS:
            raise self.fail(op.span, f"more than {MAX_OPERATIONS} arithmetic operators: compute this in the workflow")
        return Arithmetic(cast(ArithOp, op.text), left, right, left.span.to(right.span))

    def unary(self) -> Node:
        token = self.accept("-", "!")
        if token is None:
            return self.primary()
        self.deeper()
        operand = self.unary()
        self.depth -= 1
        span = token.span.to(operand.span)
        if token.text == "!":
            return Not(operand, span)
        return Number(-operand.value, span) if isinstance(operand, Number) else Negative(operand, span)

    def primary(self) -> Node:
        if literal := self.literal():
            return literal
        if self.accept("("):
            inner = self.condition()
            self.expect(")", "the expression in parentheses")
            if self.is_at(".", "["):
                raise self.fail(self.here.span, "only a name can be followed by . or [")
            return inner
        if self.here.kind == "name":
            return self.named()
        if self.is_at("["):
            raise self.fail(self.here.span, "a list can only stand to the right of 'in'")
        if self.is_at("not"):
            raise self.fail(self.here.span, "'not' binds looser than this place allows: put it in parentheses")
        raise self.unexpected("a value was expected")

    def literal(self) -> Literals | None:
        token = self.here
        if token.kind == "number":
            return Number(self.take().number, token.span)
        if token.kind == "string":
            return Text(self.take().text, token.span)
        if self.is_at("true", "false"):
            return Bool(self.take().text == "true", token.span)
        return None

    def named(self) -> Node:
        name = self.take()
        if self.is_at("("):
            return self.call(name)
        if self.here.kind == "string" and self.here.span.start == name.span.stop:
            raise self.fail(
                name.span.to(self.here.span), "prefixed strings (f\"…\", r'…') are not part of the language"
            )
        steps: list[Step] = []
        spans = [name.span]
        while self.is_at(".", "["):
            step, span = self.field() if self.take().text == "." else self.index()
            steps.append(step)
            spans.append(span)
        path = Path(name.text, tuple(steps), name.span.to(spans[-1]), tuple(spans))
        if self.is_at("("):
            raise self.not_callable(path)
        return path

    def field(self) -> tuple[str, Span]:
        token = self.take()
        if token.kind == "name":
            return token.text, token.span
        if token.kind == "word":
            raise self.fail(token.span, f'{token.text!r} is a word of the language: write ["{token.text}"]')
        raise self.fail(token.span, "a field name must follow the dot")

    def index(self) -> tuple[Step, Span]:
        token = self.here
        literal = self.literal()
        if isinstance(literal, Text):
            if literal.value.startswith("_"):
                raise self.fail(token.span, f"names starting with _ are private: {literal.value!r} cannot be read")
            step: Step = literal.value
        elif isinstance(literal, Number) and isinstance(literal.value, int):
            step = literal.value
        else:
            raise self.fail(token.span, "an index is one whole number from 0 or one string; it cannot be computed")
        self.expect("]", "the index")
        return step, token.span

    def not_callable(self, path: Path) -> ConditionError:
        if path.steps:
            return self.fail(path.spans[-1], "methods cannot be called in a condition")
        message = f"there is no function {path.root!r}: {suggestion(path.root, FUNCTIONS)}"
        return self.fail(path.span, message)

    def call(self, name: Token) -> Node:
        if name.text not in FUNCTIONS:
            raise self.not_callable(Path(name.text, (), name.span, (name.span,)))
        self.take()
        if name.text == "threshold":
            return self.threshold(name)
        if self.is_at(")"):
            raise self.fail(self.here.span, f"{name.text}(…) needs an argument")
        arguments = [self.condition()]
        while self.accept(","):
            arguments.append(self.condition())
        if self.is_at("="):
            raise self.fail(self.here.span, f"{name.text}(…) has no named arguments; == compares")
        close = self.expect(")", "the arguments")
        if len(arguments) > 1 and name.text not in _MANY:
            span = arguments[1].span.to(arguments[-1].span)
            raise self.fail(span, f"{name.text}(…) takes one argument, found {len(arguments)}")
        return Call(cast(Function, name.text), tuple(arguments), name.span.to(close.span))

    def threshold(self, start: Token) -> Threshold:
        usage = 'write threshold("name", risk=0.05)'
        name = self.take()
        if name.kind != "string" or not name.text:
            raise self.fail(name.span, f"the first argument of threshold(…) is a name in quotes: {usage}")
        self.expect(",", f"the name: {usage}")
        key = self.take()
        if (key.kind, key.text) != ("name", "risk") or not self.accept("="):
            raise self.fail(key.span, f"the second argument of threshold(…) is risk=…: {usage}")
        risk, delta = self.chance("risk", usage), DEFAULT_DELTA
        after = self.tokens[min(self.at + 1, len(self.tokens) - 1)]
        if self.is_at(",") and (after.kind, after.text) == ("name", "delta"):
            self.at += 2
            self.expect("=", f"delta: {usage[:-1]}, delta=0.1)")
            delta = self.chance("delta", usage)
        close = self.expect(")", "the risk")
        return Threshold(name.text, risk, delta, start.span.to(close.span))

    def chance(self, what: str, usage: str) -> float:
        token = self.take()
        if token.kind != "number" or not 0 < token.number < 1:
            raise self.fail(token.span, f"the {what} is a number between 0 and 1, both excluded: {usage}")
        return float(token.number)
