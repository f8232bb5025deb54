"""What is refused of retries, ladders, hysteresis, errors, budgets and joins when a table is built."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from wonder import errors
from wonder.errors import DefinitionError, ReviewError, RoutingError, SetupError, TableError, WonderError
from wonder.routing import regions
from wonder.routing.retry import Retry
from wonder.routing.rows import Row, lineage
from wonder.routing.schema import Action
from wonder.routing.source import suggestion
from wonder.routing.structure import reachable, ways
from wonder.routing.transition import HitPolicy, TableSpec

NOT_OF_ACTIONS = (DefinitionError, RoutingError, ReviewError, SetupError)
"""Branches of the error tree that a model call does not fail with, or that are mistakes to mend and not to route."""


def check(
    spec: TableSpec,
    rows: Mapping[str, Sequence[Row]],
    policies: Mapping[str, HitPolicy],
    limits: Mapping[str, int],
    actions: Mapping[str, Action],
) -> None:
    """Check every row of a table that does more than go somewhere, and the budget.

    Raises:
        TableError: Something cannot mean what it says; the message says what to write.
    """
    sources = {after for after, group in rows.items() if any(not row.transition.on_error for row in group)}
    for after, group in rows.items():
        if after not in sources:
            raise TableError(f"{group[0].label} is about errors only: add the rows for when {after!r} goes well")
        _check_error_rows([row for row in group if row.transition.on_error])
        for row in group:
            _check_errors(row)
            _check_hysteresis(row)
            _check_retries(row, policies[after], limits.get(after), actions)
            _check_join(row, policies[after], spec)
    _check_budget(spec, sources, actions)
    _check_exits(spec, sources)


def _check_errors(row: Row) -> None:
    known = {
        name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, WonderError)
    }
    of_actions = [name for name, kind in known.items() if not issubclass(kind, NOT_OF_ACTIONS)]
    for name in row.transition.on_error or ():
        if name not in known:
            raise TableError(f"{row.label}: on_error: there is no error {name!r}: {suggestion(name, of_actions)}")
        if name not in of_actions:
            raise TableError(
                f"{row.label}: on_error: {name} is no failure of a model call, or a mistake to mend where it was made: "
                f"there are {', '.join(of_actions[1:6])}, …"
            )
    if row.transition.on_error and row.transition.holds_until:
        raise TableError(f"{row.label}: a row about errors is not held: remove holds_until")


def _check_error_rows(rows: Sequence[Row]) -> None:
    """No row about errors that an earlier one always takes."""
    for at, row in enumerate(rows):
        for other in rows[:at]:
            taken = set(other.transition.on_error or ())
            if other.condition is None and all(taken & lineage(name) for name in row.transition.on_error or ()):
                names = " and ".join(row.transition.on_error or ())
                raise TableError(
                    f"{row.label} can never be taken: {other.name} takes every {names} before it; "
                    "put the narrower error first, or remove one"
                )


def _check_hysteresis(row: Row) -> None:
    if row.until is None:
        return
    if row.condition is None:
        raise TableError(f"{row.label}: holds_until belongs to a row with a condition, which takes it the first time")
    try:
        both = regions.meet(
            [
                regions.where(row.condition.node, True, row.condition.kinds),
                regions.where(row.until.node, True, row.until.kinds),
            ]
        )
    except regions.TooComplexError:
        return
    if both and regions.same_variables(row.condition.node, row.until.node, row.condition.kinds, row.until.kinds):
        raise TableError(
            f"{row.label}: {row.text!r} and holds_until={row.until.source!r} can be true together, so that the row is "
            "taken and let go at once: let go further out, as in '… < 0.7' until '… >= 0.8'"
        )


def _check_retries(row: Row, policy: HitPolicy, limit: int | None, actions: Mapping[str, Action]) -> None:
    transition = row.transition
    ladder, retry = transition.escalate_to, transition.retry_with
    if not ladder and retry is None:
        return
    if policy == "all":
        raise TableError(f"{row.label}: under the hit policy 'all' rows do not try again: use 'first' or 'unique'")
    if retry is not None and len(transition.targets) > 1:
        raise TableError(f"{row.label}: retry_with changes one target, and there are {len(transition.targets)}")
    for number, rung in enumerate(ladder, start=1):
        _check_rung(f"{row.label}: rung {number} of escalate_to", rung, actions.get(transition.from_))
        if number > 1 and rung == ladder[number - 2] and not rung.sampling.get("temperature"):
            raise TableError(f"{row.label}: rung {number} of escalate_to is rung {number - 1} again: remove one")
    if retry is not None:
        _check_rung(f"{row.label}: retry_with", retry, actions.get(transition.targets[0]))
    visits = min(found for found in (limit, transition.max_visits, len(ladder) + 1) if found is not None)
    if ladder and visits <= len(ladder):
        raise TableError(
            f"{row.label}: only {visits} visits are allowed, so rung {visits} and what comes after it are never "
            f"reached: raise max_visits to at least {len(ladder) + 1}, or shorten the ladder"
        )


def _check_rung(place: str, rung: Retry, action: Action | None) -> None:
    if rung.changes_nothing:
        raise TableError(f"{place} changes nothing: name a model, sampling, samples, capture or context")
    prompt: Any = getattr(action, "prompt", None)
    for variable in rung.context if isinstance(prompt, str) else ():
        if "{" + variable + "}" not in prompt:
            raise TableError(
                f"{place}: the prompt of {getattr(action, 'name', '')!r} has no {{{variable}}} to fill in: add it there"
            )


def _check_join(row: Row, policy: HitPolicy, spec: TableSpec) -> None:
    join, targets = row.transition.join, row.transition.targets
    if join is None:
        return
    if policy == "all":
        raise TableError(f"{row.label}: under the hit policy 'all' rows fire together and have no join of their own")
    if len(targets) < 2:
        raise TableError(f"{row.label}: a join needs several targets, and there is only {targets[0]!r}")
    if join.at in targets:
        raise TableError(f"{row.label}: the join at {join.at!r} is one of its own branches")
    if join.needed(len(targets)) > len(targets):
        raise TableError(
            f"{row.label}: {join.need} of {len(targets)} branches cannot arrive: need at most {len(targets)}"
        )
    roads = ways(spec)
    for target in targets:
        if join.at not in reachable(target, roads):
            raise TableError(
                f"{row.label}: the branch {target!r} never arrives at the join {join.at!r}: "
                f"{suggestion(join.at, sorted(reachable(target, roads)))}"
            )


def _check_budget(spec: TableSpec, sources: Collection[str], actions: Mapping[str, Action]) -> None:
    if spec.budget is None:
        if spec.on_exhausted is not None:
            raise TableError("on_exhausted without a budget: add budget={…}, or remove it")
        return
    if spec.on_exhausted in sources:
        raise TableError(f"on_exhausted: {spec.on_exhausted!r} is an action and would go over the budget again")
    if spec.budget.money is None:
        return
    models = [getattr(action, "model", None) for action in actions.values()]
    models += [rung.model for row in spec.rows for rung in (*row.escalate_to, row.retry_with) if rung]
    for model in dict.fromkeys(name for name in models if isinstance(name, str)):
        if model not in spec.budget.prices:
            near = difflib.get_close_matches(model, spec.budget.prices, n=1)
            hint = f" (it has one for {near[0]!r})" if near else ""
            raise TableError(
                f"the budget limits money and has no price for the model {model!r}{hint}: add it to prices"
            )


def _check_exits(spec: TableSpec, sources: Collection[str]) -> None:
    """The guard of a loop sends a run to `on_unknown`: that must lead out of it somewhere."""
    roads = ways(spec)
    for after in sources:
        if reachable(after, roads) <= set(sources):
            raise TableError(
                f"a run that comes to {after!r} never ends: every row and the guard of the loop (max_visits, then "
                f"on_unknown: {spec.on_unknown!r}) lead back into it: add a row whose target is an end"
            )
