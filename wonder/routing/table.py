"""`TransitionTable`: where a run goes after each action; checked when it is built, pure when it decides."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from wonder.errors import LoopLimit, NoTrace, RoutingError, TableError
from wonder.routing import audit, cascade, cascade_checks, deciding, identity, structure, syntax
from wonder.routing.budget import Budget
from wonder.routing.context import Context
from wonder.routing.decision import RouteDecision
from wonder.routing.env import Env, Thresholds
from wonder.routing.explain import figure
from wonder.routing.mermaid import flowchart
from wonder.routing.rows import Row, lineage, prepare
from wonder.routing.schema import Action
from wonder.routing.source import suggestion
from wonder.routing.svg import svg
from wonder.routing.syntax import ThresholdKey
from wonder.routing.thresholds import Resolved, resolve
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
        audit_rate: float = 0.0,
        reviews: Sequence[str] | None = None,
        budget: Budget | None = None,
        on_exhausted: str | None = None,
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
            audit_rate: Share of the accepted answers that a person looks at as well, in [0, 1].
            reviews: The targets at which a person looks; None: those that unknown goes to.
            budget: What a run may use of tokens, seconds and money.
            on_exhausted: Where to go when the next call would go over it; None: `on_unknown`.

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
            audit_rate=audit_rate,
            reviews=None if reviews is None else list(reviews),
            budget=budget,
            on_exhausted=on_exhausted,
        )
        """The table as data."""
        if not self.spec.rows:
            raise TableError('a table needs at least one row: Transition(from_=…, to=…, condition="otherwise")')
        listed = {action.name: action for action in actions}
        given = {action.name: action for row in self.spec.rows for action in row.actions}
        everything = prepare(self.spec, {**given, **listed}, state)
        self._errors = {
            after: found for after, group in everything.items() if (found := _only(group, about_errors=True))
        }
        self._rows = {
            after: found for after, group in everything.items() if (found := _only(group, about_errors=False))
        }
        self._check_policies()
        for after, group in self._rows.items():
            structure.check_rows(after, group, self.policy(after), self._rows.keys())
        structure.check_targets(self.spec, self._rows.keys(), listed)
        structure.check_audits(self.spec, self.nodes)
        self._limits = self._visit_limits()
        self._reviews = audit.review_nodes(self.spec)
        policies = {after: self.policy(after) for after in everything}
        cascade_checks.check(self.spec, everything, policies, self._limits, {**given, **listed})
        self.digest = syntax.digest(identity.canonical(self.spec, everything, policies, self._limits, self._reviews))
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
            audit_rate=spec.audit_rate,
            reviews=spec.reviews,
            budget=spec.budget,
            on_exhausted=spec.on_exhausted,
        )

    def to_dict(self) -> dict[str, Any]:
        """The table as plain data; settings left at their defaults are left out."""
        return {"schema_version": 1, **self.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)}

    def to_mermaid(self) -> str:
        """The table as a Mermaid flowchart."""
        return flowchart(self.spec)

    def to_svg(self) -> str:
        """The table as an SVG picture that stands alone."""
        return svg(self.spec)

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
    def thresholds(self) -> tuple[ThresholdKey, ...]:
        """The (name, risk) of every `threshold(…)`, with δ where one is given: what `decide` has to resolve."""
        return _thresholds(row for rows in (self._rows, self._errors) for group in rows.values() for row in group)

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

    def is_about(self, after: str, error: Exception) -> bool:
        """Whether one of the action's rows is about an error."""
        kinds = lineage(type(error).__name__)
        return any(set(row.transition.on_error or ()) & kinds for row in self._errors.get(after, ()))

    def decide(
        self,
        ctx: Context,
        after: "str | Action",
        thresholds: Thresholds | None = None,
        *,
        draw: float | None = None,
        error: Exception | str | None = None,
    ) -> RouteDecision:
        """Where the run goes after an action; appended to `ctx.decisions`.

        Args:
            ctx: Its latest trace and answer of the action are read, and its state.
            after: The action that has just run.
            thresholds: (name, risk) → the certified number, for conditions with `threshold(…)`; what is absent is
                certified from `ctx.calibrations`, and unknown where that cannot be done.
            draw: A number in [0, 1) that audits compare their rate with; by default one made from `ctx.draw_key`.
            error: What the action failed with (or its name); then the rows with `on_error` decide, and an error that
                none of them is about is raised again.

        Raises:
            NoTrace: The action has not run.
            LoopLimit: It has run too often, and the table says `on_loop_limit="raise"`.
            TableError: No row follows this action.
        """
        decision = self.evaluate(ctx, after, thresholds, draw=draw, error=error)
        ctx.decisions.append(decision)
        return decision

    def evaluate(
        self,
        ctx: Context,
        after: "str | Action",
        thresholds: Thresholds | None = None,
        *,
        draw: float | None = None,
        error: Exception | str | None = None,
    ) -> RouteDecision:
        """The decision of `decide`, without touching the context: the same values give the same decision."""
        name = after if isinstance(after, str) else after.name
        rows = self.rows(name)
        failure = error if isinstance(error, str) else type(error).__name__ if error is not None else ""
        trace = ctx.trace(name)
        if trace is None and not failure:
            there = ", ".join(dict.fromkeys(item.action for item in ctx.thought_traces)) or "none"
            raise NoTrace(f"{name!r} has no trace in this context (traces: {there}): run the action before deciding")
        visit = ctx.visits(name)
        if failure:
            rows = self._errors.get(name, ())
        given = thresholds or _NO_THRESHOLDS
        resolved = Resolved() if trace is None else resolve(_thresholds(rows), ctx, trace, given)
        env = Env(trace, ctx.outputs.get(name), ctx.state, visit, resolved.values, resolved.why)
        limit = self._limits.get(name)
        if failure:
            found = deciding.failed(rows, failure, env)
            chosen = deciding.choose_error(found, failure, env, self.spec.on_unknown)
            if chosen is None:
                raise error if isinstance(error, Exception) else RoutingError(f"no row of {name!r} is about {failure}")
        else:
            found = deciding.evaluate(rows, env, cascade.held(ctx.decisions, name))
            chosen = deciding.choose(found, self.policy(name), env, self.spec.on_unknown)
        if limit is not None and visit > limit:
            chosen = self._loop_limit(name, visit, limit)
        row = next((row for row in rows if row.name == chosen.row), None)
        step = cascade.climb(chosen, row, name, ctx.decisions)
        step = cascade.afford(step, self.spec, self._rows, ctx)
        choice = step.choice
        if draw is None and ctx.draw_key:
            draw = audit.draw(ctx.draw_key, name, visit, self.digest)
        looked_at = audit.judge(
            accepted=not failure and audit.is_accepted(name, choice.targets, self._reviews),
            reviewed=bool(self._reviews.intersection(choice.targets)),
            rate=audit.rate_of(self.spec, row),
            draw=draw,
        )
        drawn = f"; drawn for an audit (rate {figure(looked_at.propensity)})" if looked_at.drawn else ""
        return RouteDecision(
            after=name,
            to=choice.targets[0],
            targets=list(choice.targets),
            reason=choice.reason,
            explanation=choice.explanation + drawn,
            propensity=looked_at.propensity,
            audit=looked_at.drawn,
            row=choice.row,
            rows=[item.outcome() for item in found],
            visit=visit,
            table_digest=self.digest,
            table=self.spec.name,
            thresholds=resolved.record,
            retry=step.retry,
            rung=cascade.tries(ctx.decisions, name),
            cost=cascade.last_cost(ctx, name, self.spec),
            budget=step.budget,
            error=failure,
            join=row.transition.join if row and choice.targets == row.transition.targets else None,
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


def _only(rows: Sequence[Row], *, about_errors: bool) -> tuple[Row, ...]:
    return tuple(row for row in rows if bool(row.transition.on_error) == about_errors)


def _thresholds(rows: Iterable[Row]) -> tuple[ThresholdKey, ...]:
    conditions = (condition for row in rows for condition in (row.condition, row.until) if condition)
    found = (wanted for condition in conditions for wanted in condition.thresholds)
    return tuple(dict.fromkeys(found))


def _spec(**settings: Any) -> TableSpec:
    try:
        return TableSpec.model_validate(settings)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise TableError(f"this is not a transition table: {found}") from None
