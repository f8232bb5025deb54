"""What of a context goes along when a run continues as a new one: enough to decide alike, and small."""

from wonder.routing import budget
from wonder.routing.context import Context

KEPT_DECISIONS = 20
"""Per action: ladders and hysteresis look back only as far as the present answer was tried again."""


def carried(ctx: Context) -> Context:
    """The context with the latest trace of each action and its latest decisions.

    Calls whose traces stay behind still count: as visits, and as what the run has used.
    """
    latest = {id(ctx.trace(action)) for action in {trace.action for trace in ctx.thought_traces}}
    left = [trace for trace in ctx.thought_traces if id(trace) not in latest]
    decisions = []
    seen: dict[str, int] = {}
    for decision in reversed(ctx.decisions):
        seen[decision.after] = seen.get(decision.after, 0) + 1
        if seen[decision.after] <= KEPT_DECISIONS:
            decisions.append(decision)
    untraced = [usage.model_copy(update={"visit": 0}) for usage in ctx.untraced]
    return ctx.model_copy(
        update={
            "thought_traces": [trace for trace in ctx.thought_traces if id(trace) in latest],
            "decisions": decisions[::-1],
            "untraced": budget.merged([*untraced, *(budget.of_trace(trace) for trace in left)]),
        }
    )
