"""`Condition`: one condition, read, checked and compiled once, then evaluated as often as you like."""

from collections.abc import Mapping
from typing import NamedTuple

from wonder.routing import compiler, regions, syntax
from wonder.routing.check import Checker
from wonder.routing.decision import Reading
from wonder.routing.env import Env, guard, why_unknown
from wonder.routing.explain import holding, spelled
from wonder.routing.kinds import Kind
from wonder.routing.parser import parse
from wonder.routing.schema import Schema
from wonder.routing.source import Span, error
from wonder.routing.syntax import Arithmetic, Node, Path, Threshold, ThresholdKey, canonical

NO_THRESHOLD = "no certified threshold"


class Readings(NamedTuple):
    """What a condition read: for the record of a decision."""

    values: dict[str, Reading]
    """Path → what was read; None where it was unknown."""
    unknown: dict[str, str]
    """Path → why it was unknown."""


class Condition:
    """A condition such as `thought_trace.overall_confidence < 0.7`; built by `Condition.compile`."""

    __slots__ = ("_inputs", "canonical", "digest", "evaluate", "kinds", "node", "source")

    def __init__(self, source: str, node: Node, kinds: Mapping[int, Kind]) -> None:
        self.source = source
        """As written."""
        self.node = node
        self.kinds = kinds
        """The kind of every node of the tree, by `id`."""
        self.canonical = canonical(node)
        """The one spelling of what it means."""
        self.digest = syntax.digest(self.canonical)
        """16 hex digits; equal digests mean the same condition, on every version of Python."""
        self.evaluate = compiler.predicate(node)
        """`evaluate(env)` is True, False, or None for unknown; it never raises."""
        self._inputs = _inputs(node)

    @classmethod
    def compile(cls, source: str, schema: Schema | None = None) -> "Condition":
        """Read, check and compile a condition.

        Args:
            source: The text of the condition.
            schema: What may be read; by default every field of `ThoughtTrace`, and anything of output and state.

        Raises:
            ConditionError: It does not parse, reads what is not there, compares what cannot be compared, or is
                always true or always false. The message points at the place and says what to write.
        """
        node = parse(source)
        checker = Checker(source, schema or Schema.of())
        checker.condition(node)
        condition = cls(source, node, checker.kinds)
        if (verdict := condition.constant()) is not None:
            message = (
                f"always {str(verdict).lower()}: it holds for every value"
                if verdict
                else ("always false: no value makes it true")
            )
            raise error(source, Span(0, len(source)), message)
        return condition

    def __repr__(self) -> str:
        return f"Condition({self.source!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def thresholds(self) -> tuple[ThresholdKey, ...]:
        """The (name, risk) of every `threshold(…)` in it, and δ where one is given; what a mapping calls them."""
        found = (node for node in self._inputs if isinstance(node, Threshold))
        return tuple(dict.fromkeys(node.key for node in found))

    def constant(self) -> bool | None:
        """True or False where that is the only outcome over all known values; None otherwise, or when unsure."""
        try:
            if not regions.where(self.node, True, self.kinds):
                return False
            return None if regions.where(self.node, False, self.kinds) else True
        except regions.TooComplexError:
            return None

    def readings(self, env: Env) -> Readings:
        """Everything the condition read, and why what was unknown was unknown."""
        values: dict[str, Reading] = {}
        unknown: dict[str, str] = {}
        for node, run in self._inputs.items():
            name, found = canonical(node), guard(run(env))
            if isinstance(node, Arithmetic):
                # Worth a line only where the parts are known and the result is not, as in a division by zero.
                if found is None and not any(canonical(part) in unknown for part in syntax.walk(node)):
                    unknown[name] = "no finite result"
                continue
            values[name] = spelled(found)
            if found is None:
                why = why_unknown(env, node) if isinstance(node, Path) else env.no_threshold.get(node.key)
                unknown[name] = why or NO_THRESHOLD
        if not unknown and self.evaluate(env) is None:
            unknown[self.canonical] = "the values are not of the kinds this compares"
        return Readings(values, unknown)

    def because(self, env: Env, *, is_true: bool = True) -> str:
        """Why the condition holds (or does not), as a clause: `overall_confidence 0.62 is below 0.7`."""
        return holding(self.node, env, is_true)


def _inputs(node: Node) -> dict[Path | Threshold | Arithmetic, compiler.Run]:
    """What a condition reads from outside; arithmetic after its parts."""
    found = [part for part in syntax.walk(node) if isinstance(part, Path | Threshold | Arithmetic)]
    leaves = [part for part in found if not isinstance(part, Arithmetic)]
    innermost_first = [part for part in reversed(found) if isinstance(part, Arithmetic)]
    return {part: compiler.value(part) for part in (*leaves, *innermost_first)}
