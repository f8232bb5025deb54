"""From the row that was chosen to what happens: the next rung of its ladder, if the budget still has room for it."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from wonder.routing import budget
from wonder.routing.budget import BudgetState, Spent, Usage
from wonder.routing.context import Context
from wonder.routing.deciding import Choice
from wonder.routing.decision import RouteDecision
from wonder.routing.retry import Retry
from wonder.routing.rows import Row
from wonder.routing.transition import TableSpec


@dataclass(frozen=True, slots=True)
class Step:
    """A choice, what is changed when its target runs, and what the budget said."""

    choice: Choice
    retry: Retry | None = None
    budget: BudgetState | None = None


def tries(decisions: Sequence[RouteDecision], after: str, row: str | None = None) -> int:
    """How often the action's present answer has been tried again, by any row or by this one."""
    count = 0
    for decision in reversed(decisions):
        if decision.after != after:
            continue
        if decision.retry is None or after not in decision.targets:
            break
        count += row is None or decision.row == row
    return count


def held(decisions: Sequence[RouteDecision], after: str) -> frozenset[str]:
    """The rows that were taken at the action's previous visit."""
    last = next((decision for decision in reversed(decisions) if decision.after == after), None)
    if last is None or last.row is None or last.reason == "unknown":
        return frozenset()
    return frozenset(
        {last.row, *(row.name for row in last.rows if row.outcome == "true" and set(row.to) & {*last.targets})}
    )


def climb(choice: Choice, row: Row | None, after: str, decisions: Sequence[RouteDecision]) -> Step:
    """The next rung of the row's ladder while there is one, then its target."""
    if row is None or choice.reason in ("unknown", "loop_limit"):
        return Step(choice)
    ladder = row.transition.escalate_to
    at = tries(decisions, after, row.name)
    if at >= len(ladder):
        return Step(choice, row.transition.retry_with)
    told = f"{choice.because}: again with {ladder[at]} (rung {at + 1} of {len(ladder)})"
    return Step(Choice((after,), "escalation", told, row.name, choice.because), ladder[at])


def afford(step: Step, spec: TableSpec, sources: Collection[str], ctx: Context) -> Step:
    """The step, or the way to `on_exhausted` where it begins a call that does not fit into the budget."""
    limits = spec.budget
    if limits is None:
        return step
    spent = budget.total(ctx.used(), limits)
    state = budget.state(limits, spent)
    nodes = [target for target in step.choice.targets if target in sources]
    coming = budget.total([usage for node in nodes for usage in _expected(ctx, node, step.retry)], limits)
    why = budget.why_not(limits, spent, coming) if nodes else ""
    if not why:
        return Step(step.choice, step.retry, state)
    target = spec.on_exhausted or spec.on_unknown
    return Step(Choice((target,), "budget", f"{why}: on to {target}", step.choice.row), None, state)


def last_cost(ctx: Context, after: str, spec: TableSpec) -> Spent:
    """What the action's latest visit used, all samples together."""
    return budget.total(_latest(ctx, after), spec.budget)


def _latest(ctx: Context, action: str) -> list[Usage]:
    visit, trace = ctx.visits(action), ctx.trace(action)
    failed = [usage for usage in ctx.untraced if usage.action == action and usage.visit == visit]
    return failed if failed or trace is None else [budget.of_trace(trace)]


def _expected(ctx: Context, action: str, retry: Retry | None) -> list[Usage]:
    """What the next call of an action is likely to use: what an answer of its latest visit did, as often as asked."""
    trace = ctx.trace(action)
    if trace is None:
        return []
    last = budget.of_trace(trace)
    if retry is None:
        return [last]
    one = Usage(
        action=action,
        model=retry.model or last.model,
        prompt_tokens=math.ceil(last.prompt_tokens / last.calls),
        tokens=math.ceil(last.tokens / last.calls),
        # Answers that are drawn together take about as long as one.
        seconds=last.seconds,
    )
    return [one, *[one.model_copy(update={"seconds": 0.0})] * retry.samples]
