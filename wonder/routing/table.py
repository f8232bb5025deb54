"""`TransitionTable`: where a run goes after each action; checked when it is built, pure when it decides."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from wonder.errors import LoopLimit, NoTrace, TableError
from wonder.routing import deciding, structure, syntax
from wonder.routing.context import Context
from wonder.routing.decision import RouteDecision
from wonder.routing.env import Env, Thresholds
from wonder.routing.mermaid import flowchart
from wonder.routing.rows import Row, prepare
from wonder.routing.schema import Action
from wonder.routing.source import suggestion
from wonder.routing.transition import HitPolicy, OnLoopLimit, TableSpec, Transition

DEFAULT_MAX_VISITS = 10
"""How often an action on a loop may run, where the table does not say."""

_NO_THRESHOLDS: Thresholds = {}


class TransitionTable:
    """Rows by the action they follow.

    Everything that can be known to be wrong is refused here: a condition that cannot mean what it says, a table
    without a way out, a row that is never reached, a target that does not exist.
    """

    def __init__(
        self,
        rows: Iterable[Transition],
        *,
        actions: Iterable[Action] = (),
        ends: Sequence[str] | None = None,
        hit_policy: HitPolicy | Mapping[str, HitPolicy] = "first",
        on_unknown: str = "human_review",
        name: str = "",
        state: Any = None,
        max_visits: int | None = None,
        on_loop_limit: OnLoopLimit = "route",
    ) -> None:
        """Build and check a table.

        Args:
            rows: Transitions; within an action, the order counts.
            actions: The actions of the table, where the rows name them by strings; conditions are then checked
                against what each reads and answers, and every target must be one of them or an end.
            ends: The targets that no rows follow; None takes every such target for one, and refuses near misses.
            hit_policy: What happens when several rows are true; for all actions, or by action.
            on_unknown: Where to go when something a decision needs is unknown.
            name: The table's name and version, for the record.
            state: The type of `Context.state` (a model or a dataclass), to check conditions against.
            max_visits: How often an action may run; None: 10 times on a loop, without limit elsewhere.
            on_loop_limit: Go to `on_unknown`, or raise `LoopLimit`.

        Raises:
            ConditionError: A condition is wrong; the message names the row and points at the place.
            TableError: The table as a whole is.
        """
        self.spec = _spec(
            rows=list(rows),
            ends=None if ends is None else list(ends),
            hit_policy=hit_policy if isinstance(hit_policy, str) else dict(hit_policy),
            on_unknown=on_unknown,
            name=name,
            max_visits=max_visits,
            on_loop_limit=on_loop_limit,
        )
        """The table as data."""
        if not self.spec.rows:
            raise TableError('a table needs at least one row: Transition(from_=…, to=…, condition="otherwise")')
        listed = {action.name: action for action in actions}
        given = {action.name: action for row in self.spec.rows for action in row.actions}
        self._rows = prepare(self.spec, {**given, **listed}, state)
        self._check_policies()
        for after, group in self._rows.items():
            structure.check_rows(after, group, self.policy(after), self._rows.keys())
        structure.check_targets(self.spec, self._rows.keys(), listed)
        self._limits = self._visit_limits()
        self.digest = syntax.digest(self._canonical())
        """16 hex digits; tables with equal digests decide alike."""

    def __repr__(self) -> str:
        return f"TransitionTable({self.spec.name!r}, rows={len(self.spec.rows)}, digest={self.digest!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TransitionTable) and other.to_dict() == self.to_dict()

    def __hash__(self) -> int:
        return hash(self.digest)

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, actions: Iterable[Action] = (), state: Any = None
    ) -> "TransitionTable":
        """The table of `to_dict`, or of a JSON or YAML file of that form.

        Raises:
            ConditionError: A condition is wrong.
            TableError: The table as a whole is.
        """
        return cls.from_spec(_spec(**data), actions=actions, state=state)

    @classmethod
    def from_spec(cls, spec: TableSpec, *, actions: Iterable[Action] = (), state: Any = None) -> "TransitionTable":
        """The table that a spec describes; a spec travels as a workflow's input."""
        return cls(
            spec.rows,
            actions=actions,
            ends=spec.ends,
            hit_policy=spec.hit_policy,
            on_unknown=spec.on_unknown,
            name=spec.name,
            state=state,
            max_visits=spec.max_visits,
            on_loop_limit=spec.on_loop_limit,
        )

    def to_dict(self) -> dict[str, Any]:
        """The table as plain data; settings left at their defaults are left out."""
        return {"schema_version": 1, **self.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)}

    def to_mermaid(self) -> str:
        """The table as a Mermaid flowchart."""
        return flowchart(self.spec)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every action and target, in the order in which the table names them."""
        names = [name for row in self.spec.rows for name in (row.from_, *row.targets, row.on_unknown)]
        return tuple(dict.fromkeys(name for name in (*names, self.spec.on_unknown) if name))

    @property
    def sources(self) -> tuple[str, ...]:
        """The actions that rows follow: what `after` may be."""
        return tuple(self._rows)

    @property
    def thresholds(self) -> tuple[tuple[str, float], ...]:
        """The (name, risk) of every `threshold(…)`, to be resolved before `decide`."""
        conditions = [row.condition for group in self._rows.values() for row in group if row.condition]
        return tuple(dict.fromkeys(wanted for condition in conditions for wanted in condition.thresholds))

    def policy(self, after: str) -> HitPolicy:
        """The hit policy of the rows of an action."""
        policy = self.spec.hit_policy
        return policy if isinstance(policy, str) else policy.get(after, "first")

    def rows(self, after: str) -> tuple[Row, ...]:
        """The rows of an action, in the order in which they are looked at.

        Raises:
            TableError: No row follows this action.
        """
        if after not in self._rows:
            raise TableError(f"no row follows {after!r}: {suggestion(after, self._rows)}")
        return self._rows[after]

    def decide(self, ctx: Context, after: "str | Action", thresholds: Thresholds | None = None) -> RouteDecision:
        """Where the run goes after an action; appended to `ctx.decisions`.

        Args:
            ctx: Its latest trace and answer of the action are read, and its state.
            after: The action that has just run.
            thresholds: (name, risk) → the certified number, for conditions with `threshold(…)`; what is absent is
                unknown.

        Raises:
            NoTrace: The action has not run.
            LoopLimit: It has run too often, and the table says `on_loop_limit="raise"`.
            TableError: No row follows this action.
        """
        decision = self.evaluate(ctx, after, thresholds)
        ctx.decisions.append(decision)
        return decision

    def evaluate(self, ctx: Context, after: "str | Action", thresholds: Thresholds | None = None) -> RouteDecision:
        """The decision of `decide`, without touching the context: the same values give the same decision."""
        name = after if isinstance(after, str) else after.name
        rows = self.rows(name)
        trace = ctx.trace(name)
        if trace is None:
            there = ", ".join(dict.fromkeys(item.action for item in ctx.thought_traces)) or "none"
            raise NoTrace(f"{name!r} has no trace in this context (traces: {there}): run the action before deciding")
        visit = ctx.visits(name)
        env = Env(trace, ctx.outputs.get(name), ctx.state, visit, thresholds or _NO_THRESHOLDS)
        found = deciding.evaluate(rows, env)
        limit = self._limits.get(name)
        if limit is not None and visit > limit:
            choice = self._loop_limit(name, visit, limit)
        else:
            choice = deciding.choose(found, self.policy(name), env, self.spec.on_unknown)
        return RouteDecision(
            after=name,
            to=choice.targets[0],
            targets=list(choice.targets),
            reason=choice.reason,
            explanation=choice.explanation,
            row=choice.row,
            rows=[item.outcome() for item in found],
            visit=visit,
            table_digest=self.digest,
            table=self.spec.name,
        )

    def _loop_limit(self, after: str, visit: int, limit: int) -> deciding.Choice:
        told = f"{after!r} has run {visit} times, and the table allows {limit}"
        if self.spec.on_loop_limit == "raise":
            raise LoopLimit(f"{told}: raise max_visits, or look at why the loop does not end")
        target = self.spec.on_unknown
        return deciding.Choice((target,), "loop_limit", f"{told}: on to {target}")

    def _check_policies(self) -> None:
        if isinstance(self.spec.hit_policy, dict):
            for after in self.spec.hit_policy:
                if after not in self._rows:
                    raise TableError(f"hit_policy: no row follows {after!r}: {suggestion(after, self._rows)}")

    def _visit_limits(self) -> dict[str, int]:
        if self.spec.max_visits is not None:
            return dict.fromkeys(self._rows, self.spec.max_visits)
        return dict.fromkeys(structure.loops(self.spec), DEFAULT_MAX_VISITS)

    def _canonical(self) -> str:
        groups: list[list[object]] = []
        for after, group in sorted(self._rows.items()):
            rows = [
                (row.digest, item.targets, item.on_unknown, item.requires_status, item.max_visits)
                for row in group
                for item in (row.transition,)
            ]
            groups.append([after, self.policy(after), self._limits.get(after), rows])
        return json.dumps([1, groups, self.spec.on_unknown, self.spec.on_loop_limit], ensure_ascii=True)


def _spec(**settings: Any) -> TableSpec:
    try:
        return TableSpec.model_validate(settings)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise TableError(f"this is not a transition table: {found}") from None
