"""`Plan`: a graph read and checked completely, ready to run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_json
from temporalio.workflow import ActivityConfig

from wonder.actions import prompts
from wonder.actions.definition import ActionDef
from wonder.errors import DefinitionError, GraphError
from wonder.graph.spec import GraphSpec, problems
from wonder.graph.types import model_of, type_of
from wonder.routing.kinds import Kind, fields_of, of_type
from wonder.routing.source import suggestion
from wonder.routing.structure import reachable, ways
from wonder.routing.table import TransitionTable

Sources = Mapping[str, tuple[str, ...]]
"""Variable → the path it comes from: `("input", "text")`, `("classify", "team")`."""


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs, built from a spec by `plan`."""

    spec: GraphSpec
    actions: Mapping[str, ActionDef[Any]]
    table: TransitionTable
    sources: Mapping[str, Sources]
    """Action or review → where its variables come from."""
    input: Any
    """Type of the input; None: anything."""

    def check_input(self, given: Mapping[str, JsonValue]) -> dict[str, Any]:
        """The input as its type says.

        Raises:
            GraphError: It does not fit.
        """
        if self.input is None:
            wanted = {path[1] for found in self.sources.values() for path in found.values() if path[0] == "input"}
            if missing := sorted(wanted - given.keys()):
                raise GraphError(f"the input lacks {', '.join(missing)}, which the graph's prompts are filled with")
            return dict(given)
        if unknown := sorted(given.keys() - set(self.spec.input)):
            raise GraphError(
                f"the graph's input has no field {unknown[0]!r}: {suggestion(unknown[0], self.spec.input)}"
            )
        try:
            return dict(TypeAdapter(self.input).validate_python(given).model_dump(mode="json"))
        except ValidationError as error:
            raise GraphError(
                f"the input does not fit the graph ({problems(error)}): correct it and start again"
            ) from None

    def variables(self, node: str, state: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, str]:
        """What the templates of an action or a review are filled with.

        Raises:
            GraphError: An answer that is needed is not there (yet, or because it did not parse).
        """
        return {name: _text(_follow(node, name, path, state, outputs)) for name, path in self.sources[node].items()}


def plan(spec: GraphSpec) -> Plan:
    """Check a graph completely.

    Raises:
        GraphError: A name, a type, a template or a way does not fit; the message says what to write.
        ConditionError: A condition is wrong.
        TableError: The rows are.
    """
    _check_names(spec)
    given = model_of(spec.input, "input") if spec.input else None
    actions = {name: _action(name, spec) for name in spec.actions}
    for name in actions:
        if all(row.from_ != name or row.on_error for row in spec.rows):
            raise GraphError(f"no row says where the run goes after {name!r}: add rows with from: {name}")
    table = TransitionTable.from_spec(spec.table(), actions=actions.values(), state=given)
    sources = {
        name: _sources(name, prompts.variables(action.prompt), spec, actions) for name, action in actions.items()
    }
    sources |= {
        name: _sources(name, prompts.variables(review.title) | prompts.variables(review.prompt), spec, actions)
        for name, review in spec.reviews.items()
    }
    _check_ways(spec)
    _check_retries(spec)
    return Plan(spec, actions, table, sources, given)


def _check_names(spec: GraphSpec) -> None:
    for kind, names, others in (
        ("a review", spec.reviews, spec.actions),
        ("an end", spec.ends, {*spec.actions, *spec.reviews}),
    ):
        if both := [name for name in names if name in others]:
            raise GraphError(f"{both[0]!r} is {kind} and something else too: give them different names")
    if "input" in spec.actions:
        raise GraphError("an action cannot be called 'input', which names what the run is started with")
    if spec.first not in spec.actions:
        raise GraphError(f"start: there is no action {spec.first!r}: {suggestion(spec.first, spec.actions)}")
    if spec.unknown not in (*spec.reviews, *spec.ends):
        raise GraphError(
            f"on_unknown: {spec.unknown!r} is neither a review nor an end: {suggestion(spec.unknown, spec.reviews)}; "
            "say where the run goes when something is unknown"
        )
    nodes = [*spec.actions, *spec.reviews, *spec.ends]
    for name, review in spec.reviews.items():
        for verdict, target in review.then.items():
            if verdict not in review.allowed:
                raise GraphError(f"review {name!r}: then: {verdict} is not among the allowed verdicts")
            if target not in nodes:
                raise GraphError(f"review {name!r}: then: {target!r} is not in the graph: {suggestion(target, nodes)}")


def _action(name: str, spec: GraphSpec) -> ActionDef[Any]:
    found = spec.actions[name]
    try:
        return ActionDef(
            name=name,
            prompt=found.prompt,
            output=type_of(found.output, name),
            model=found.model,
            sampling=found.sampling,
            thought_capture=found.thought_capture,
            constrained=found.constrained,
            activity=ActivityConfig(
                schedule_to_start_timeout=found.worker_within,
                start_to_close_timeout=found.finish_within,
                heartbeat_timeout=min(timedelta(seconds=60), found.finish_within),
            ),
        )
    except GraphError:
        raise
    except DefinitionError as error:
        raise GraphError(f"action {name!r}: {error}") from None


def _sources(node: str, needed: Iterable[str], spec: GraphSpec, actions: Mapping[str, ActionDef[Any]]) -> Sources:
    """Where the variables of a node come from, each checked."""
    written = spec.actions[node].variables if node in spec.actions else {}
    needed = sorted(needed)
    if stray := sorted(written.keys() - set(needed)):
        raise GraphError(f"{node!r}: the prompt has no variable {{{stray[0]}}}: {suggestion(stray[0], needed)}")
    later = {name for row in spec.rows for rung in _rungs_of(row, node) for name in rung.context}
    found: dict[str, tuple[str, ...]] = {}
    for name in needed:
        if name in written:
            found[name] = _checked(node, name, tuple(written[name].split(".")), spec, actions)
        elif not spec.input or name in spec.input:
            found[name] = () if name in later and name not in spec.input else ("input", name)
        elif name in later:
            found[name] = ()  # empty until a retry fills it
        else:
            raise GraphError(
                f"{node!r}: the input has no field {name!r} to fill {{{name}}} with: {suggestion(name, spec.input)}; "
                f"or say where it comes from: variables: {{{name}: classify.team}}"
            )
    return found


def _rungs_of(row: Any, node: str) -> list[Any]:
    ladder = list(row.escalate_to) if row.from_ == node else []
    return [*ladder, *([row.retry_with] if row.retry_with and node in row.targets else [])]


def _checked(
    node: str, name: str, path: tuple[str, ...], spec: GraphSpec, actions: Mapping[str, ActionDef[Any]]
) -> tuple[str, ...]:
    roots = ["input", *actions]
    place = f"{node!r}: variables: {name}"
    if path[0] not in roots:
        raise GraphError(f"{place}: {path[0]!r} is neither the input nor an action: {suggestion(path[0], roots)}")
    if path[0] == "input" and not spec.input:
        return path
    kind = of_type(model_of(spec.input, "input") if path[0] == "input" else actions[path[0]].output)
    for at, step in enumerate(path[1:], start=1):
        known = fields_of(kind.model) if kind.name == "object" and kind.model else None
        if kind.name == "any":
            break
        if known is None or step not in known:
            raise GraphError(f"{place}: {'.'.join(path[:at])} has no field {step!r}: {suggestion(step, known or ())}")
        kind = known[step] if isinstance(known[step], Kind) else kind
    if path == ("input",):
        raise GraphError(f"{place}: name a field of the input, such as input.{next(iter(spec.input))}")
    return path


def _check_ways(spec: GraphSpec) -> None:
    roads = ways(spec.table())
    for name, review in spec.reviews.items():
        roads[name] = set(review.then.values())
    from_start = {spec.first, *reachable(spec.first, roads)}
    for name in (*spec.actions, *spec.ends, *spec.reviews):
        if name not in from_start:
            raise GraphError(f"nothing leads to {name!r} from {spec.first!r}: add a row to it, or remove it")


def _check_retries(spec: GraphSpec) -> None:
    """What a retry fills its prompt with is in the input."""
    for row in spec.rows:
        for rung in (*row.escalate_to, *([row.retry_with] if row.retry_with else [])):
            for variable, path in rung.context.items():
                if spec.input and path.split(".")[0] not in spec.input:
                    place = "escalate_to" if rung in row.escalate_to else "retry_with"
                    raise GraphError(
                        f"a row after {row.from_!r}: {place} fills {{{variable}}} from {path!r}, "
                        f"which the input does not have: {suggestion(path.split('.')[0], spec.input)}"
                    )


def _follow(node: str, name: str, path: tuple[str, ...], state: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    if not path:
        return ""
    value: Any = state if path[0] == "input" else outputs.get(path[0])
    for step in path[1:] if path[0] != "input" or len(path) > 1 else ():
        value = value.get(step) if isinstance(value, Mapping) else getattr(value, step, None)
    if value is None and path[0] != "input":
        raise GraphError(f"{node!r} needs {{{name}}} from {'.'.join(path)}, and there is no such answer (yet)")
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(value)
    return to_json(value).decode()
