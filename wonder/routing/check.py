"""The checks a condition passes before it may decide anything: names, kinds, bounds."""

import math
from collections.abc import Iterable

from wonder.errors import ConditionError
from wonder.routing import bounds
from wonder.routing.kinds import ANY, BOOL, COUNT, NUMBER, Kind, fields_of, one, union
from wonder.routing.schema import Schema, unread_layer
from wonder.routing.source import Span, error, suggestion
from wonder.routing.syntax import (
    And,
    Arithmetic,
    Bool,
    Call,
    Compare,
    CompareOp,
    If,
    In,
    Items,
    Negative,
    Node,
    Not,
    Number,
    Or,
    Path,
    Step,
    Text,
    Threshold,
    canonical,
)
from wonder.trace.schema import ThoughtTrace
from wonder.trace.signals import SIGNALS


class Checker:
    """Walks a tree once; `kinds` then holds the kind of every node, by `id`."""

    def __init__(self, source: str, schema: Schema) -> None:
        self.source = source
        self.schema = schema
        self.kinds: dict[int, Kind] = {}

    def condition(self, node: Node) -> None:
        """Check a whole condition.

        Raises:
            ConditionError: Something in it cannot be, or says nothing.
        """
        kind = self.kind(node)
        if kind.name not in ("bool", "any"):
            raise self.fail(
                node.span, f"a condition is true or false, this is {kind.article}: compare it with something"
            )

    def fail(self, span: Span, message: str) -> ConditionError:
        return error(self.source, span, message)

    def kind(self, node: Node) -> Kind:
        found = self.kinds[id(node)] = self._kind(node)
        return found

    def _kind(self, node: Node) -> Kind:
        match node:
            case Number(value) | Text(value):
                return one(value)
            case Bool():
                return BOOL
            case Path():
                return self._path(node)
            case Negative(operand):
                return bounds.negative(self._want(operand, "number", "a minus sign takes a number"))
            case Arithmetic(op, left, right):
                sides = [self._want(side, "number", f"{op} takes numbers") for side in (left, right)]
                if op == "/" and sides[1].constant == 0:
                    raise self.fail(right.span, "division by zero is always unknown")
                return bounds.arithmetic(op, *sides)
            case Compare():
                return self._compare(node)
            case In():
                return self._in(node)
            case Not(operand):
                self._want(operand, "bool", "not takes a condition")
                return BOOL
            case And(parts) | Or(parts):
                for part in parts:
                    self._want(part, "bool", "and, or take conditions")
                return BOOL
            case If(test, then, other):
                self._want(test, "bool", "the test of 'if' is a condition")
                first, second = self.kind(then), self.kind(other)
                if "any" not in (first.name, second.name) and first.name != second.name:
                    raise self.fail(other.span, f"one branch of 'if' is {first.article}, the other {second.article}")
                return union([first, second])
            case Call():
                return self._call(node)
            case Threshold():
                return NUMBER

    def _want(self, node: Node, name: str, rule: str) -> Kind:
        kind = self.kind(node)
        if kind.name == "any":
            return Kind("number") if name == "number" else kind
        if kind.name != name:
            raise self.fail(node.span, f"{rule}, this is {kind.article}")
        return kind

    # Reads

    def _path(self, path: Path) -> Kind:
        roots = self.schema.roots
        if path.root not in roots:
            is_field = path.root in (fields_of(ThoughtTrace) or ())
            hint = f"write thought_trace.{path.root}" if is_field else suggestion(path.root, roots)
            raise self.fail(path.spans[0], f"unknown name {path.root!r}: {hint}")
        kind = roots[path.root]
        if path.root == "thought_trace" and path.steps:
            self._check_switched_on(path)
        for at, step in enumerate(path.steps):
            if path.root == "thought_trace" and path.steps[:at] in (("active_concepts",), ("concept_sites",)):
                self._check_concept(step, path.spans[at + 1])
            if path.root == "thought_trace" and path.steps[:at] == ("claims",):
                self._check_claim(step, path.spans[at + 1])
            if path.root == "thought_trace" and path.steps[:at] == ("signals",):
                self._check_signal(step, path.spans[at + 1])
            kind = self._step(kind, step, path.spans[at + 1])
        return kind

    def _check_switched_on(self, path: Path) -> None:
        field, action = path.steps[0], self.schema.action
        setting, what = self.schema.off.get(str(field)), str(field)
        if setting is None and self.schema.capture and len(path.steps) > 1:
            setting, what = unread_layer(self.schema.capture, field, path.steps[1]), f"{field} of layer {path.steps[1]}"
        if setting is not None:
            verb = "keep" if setting.startswith(("store_in", "detail")) else "read"
            raise self.fail(
                path.spans[1],
                f"action {action!r} does not {verb} {what}, so this would always be unknown: "
                f"give it ThoughtCapture({setting})",
            )

    def _check_concept(self, step: Step, span: Span) -> None:
        concepts = self.schema.concepts
        if concepts is not None and step not in concepts:
            raise self.fail(
                span,
                f"action {self.schema.action!r} does not probe {step!r}: {suggestion(str(step), concepts)} "
                "(concepts are listed in ThoughtCapture(run_concept_probes=[…]))",
            )

    def _check_claim(self, step: Step, span: Span) -> None:
        claims = self.schema.claims
        if claims is not None and step not in claims:
            raise self.fail(
                span,
                f"action {self.schema.action!r} makes no claim {step!r}: {suggestion(str(step), claims)} "
                "(claims are listed in ActionDef(claims=[…]))",
            )

    def _check_signal(self, step: Step, span: Span) -> None:
        signal = SIGNALS.get(str(step))
        if signal is None:
            raise self.fail(span, f"there is no signal {str(step)!r}; {suggestion(str(step), list(SIGNALS))}")
        capture = self.schema.capture
        if signal.needs and capture is not None and not signal.is_read_by(capture):
            raise self.fail(
                span,
                f"action {self.schema.action!r} does not read what {step!r} is made of, so this would always be "
                f"unknown: give it ThoughtCapture({signal.needs})",
            )

    def _step(self, kind: Kind, step: Step, span: Span) -> Kind:
        if kind.name == "any":
            return ANY
        if kind.name == "object" and kind.model and (fields := fields_of(kind.model)) is not None:
            if step not in fields:
                title = kind.model.__name__
                raise self.fail(span, f"{title} has no field {str(step)!r}; {suggestion(str(step), fields)}")
            return fields[str(step)]
        if kind.name == "map":
            if isinstance(step, int) and not kind.number_keys:
                raise self.fail(span, f'the keys of this map are strings: write ["{step}"]')
            if kind.keys is not None and str(step) not in kind.keys:
                raise self.fail(span, f"the map has no key {step!r}; {suggestion(str(step), kind.keys)}")
            return kind.item or ANY
        if kind.name == "list":
            if isinstance(step, str):
                raise self.fail(span, f"a list has no field {step!r}: its entries are read as [0], [1], …")
            return kind.item or ANY
        raise self.fail(span, f"{kind.article} has no parts: {step!r} cannot be read from it")

    # Comparisons

    def _compare(self, node: Compare) -> Kind:
        for left, op, right in node.pairs():
            self._link(left, op, right, left.span.to(right.span))
        return BOOL

    def _link(self, left: Node, op: CompareOp, right: Node, span: Span) -> None:
        first, second = self.kind(left), self.kind(right)
        for side, kind in ((left, first), (right, second)):
            if kind.name in ("list", "map", "object"):
                raise self.fail(
                    side.span, f"{kind.article} cannot be compared: compare one of its parts, or its len(…)"
                )
        if op not in ("==", "!=") and "bool" in (first.name, second.name):
            side = left if first.name == "bool" else right
            hint = "; ! binds tighter than a comparison, not binds looser" if isinstance(side, Not) else ""
            raise self.fail(side.span, f"a bool is neither smaller nor larger than anything: use == or !={hint}")
        if "any" not in (first.name, second.name) and first.name != second.name:
            raise self.fail(span, f"cannot compare {first.article} with {second.article}")
        if canonical(left) == canonical(right):
            raise self.fail(span, "both sides are the same")
        if first.name == second.name == "number":
            self._number_link(left, op, right, span)
        if first.name == second.name == "text" and op in ("==", "!="):
            self._text_link(left, right, span)

    def _number_link(self, left: Node, op: CompareOp, right: Node, span: Span) -> None:
        first, second = self.kinds[id(left)], self.kinds[id(right)]
        verdict = bounds.compare(first, op, second)
        if verdict is not None:
            facts = [
                f"{'the value' if other.constant is not None else canonical(side)} lies in {kind.interval}"
                for side, kind, other in ((left, first, second), (right, second, first))
                if kind.constant is None and (kind.low, kind.high) != (-math.inf, math.inf)
            ]
            listed = first.members or second.members
            if listed:
                facts = [f"the value is one of {', '.join(map(str, listed))}"]
            elif not facts and (first.constant is None or second.constant is None):
                facts = ["the value is a whole number"]
            raise self.fail(span, f"always {str(verdict).lower()}: {' and '.join(facts) or 'both sides are constants'}")

    def _text_link(self, left: Node, right: Node, span: Span) -> None:
        first, second = self.kinds[id(left)].members, self.kinds[id(right)].members
        if first is None or second is None:
            return
        if not set(first) & set(second):
            written, known = (first, second) if isinstance(left, Text) else (second, first)
            names = [str(name) for name in known]
            raise self.fail(span, f"the two sides are never equal: {suggestion(str(written[0]), names)}")
        if len(first) == len(second) == 1:
            raise self.fail(span, "the two sides are always equal")

    def _in(self, node: In) -> Kind:
        item = self.kind(node.item)
        if item.name in ("list", "map", "object"):
            raise self.fail(node.item.span, f"'in' looks for a single value, this is {item.article}")
        if isinstance(node.container, Items):
            self._in_items(node.item, item, node.container)
            return BOOL
        container = self.kind(node.container)
        if container.name not in ("list", "map", "any"):
            raise self.fail(
                node.container.span, f"'in' looks into a list or the keys of a map, this is {container.article}"
            )
        inner = Kind("text") if container.name == "map" and not container.number_keys else container.item or ANY
        if "any" not in (item.name, inner.name) and item.name != inner.name:
            raise self.fail(node.item.span, f"'in' looks for {inner.article} here, this is {item.article}")
        if isinstance(node.item, Text):
            if canonical(node.container) == "thought_trace.active_concepts":
                self._check_concept(node.item.value, node.item.span)
            if canonical(node.container) == "thought_trace.signals":
                self._check_signal(node.item.value, node.item.span)
            names = container.keys if container.name == "map" else inner.members
            self._check_member(node.item, names)
        return BOOL

    def _in_items(self, item: Node, kind: Kind, container: Items) -> None:
        for value in container.values:
            entry = self.kind(value)
            if kind.name not in ("any", entry.name):
                raise self.fail(value.span, f"cannot compare {kind.article} with {entry.article}")
            if isinstance(value, Text):
                self._check_member(value, kind.members)
            elif kind.name == "number":
                self._number_link(item, "==", value, value.span)

    def _check_member(self, value: Text, members: Iterable[object] | None) -> None:
        names = None if members is None else [str(member) for member in members]
        if names is not None and value.value not in names:
            raise self.fail(value.span, f"there never is {value.value!r} here: {suggestion(value.value, names)}")

    # Functions

    def _call(self, node: Call) -> Kind:
        match node.function:
            case "known":
                self.kind(node.arguments[0])
                if not _may_be_unknown(node.arguments[0]):
                    raise self.fail(node.span, "always true: this is never unknown")
                return BOOL
            case "len":
                kind = self.kind(node.arguments[0])
                if kind.name not in ("list", "map", "text", "any"):
                    raise self.fail(
                        node.arguments[0].span, f"len(…) takes a list, a map or a string, this is {kind.article}"
                    )
                return COUNT
            case "abs":
                return bounds.absolute(self._want(node.arguments[0], "number", "abs(…) takes a number"))
            case _:
                kinds = [self._want(part, "number", f"{node.function}(…) takes numbers") for part in node.arguments]
                return bounds.extreme(node.function, kinds)


def _may_be_unknown(node: Node) -> bool:
    return not isinstance(node, Number | Text | Bool) and node != Path("visits")
