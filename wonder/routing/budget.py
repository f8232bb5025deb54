"""What a run may use, what it has used, and whether the next call still fits: tokens, seconds, money."""

import math
from collections.abc import Iterable, Sequence

from pydantic import Field

from wonder.trace.schema import Quantiles, SampleSummary, ThoughtTrace
from wonder.wire import NonNegative, Settings, WireRecord


class Price(Settings):
    """What a model costs, in the currency of the budget's `money`."""

    per_million_prompt_tokens: NonNegative = 0.0
    per_million_tokens: NonNegative = 0.0
    """Of generated tokens."""
    per_second: NonNegative = 0.0
    """Of the time its calls take."""


class Budget(Settings):
    """Limits of one run over all its actions; None: no limit."""

    tokens: int | None = Field(default=None, ge=1)
    """Of prompts and answers together."""
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """That model calls take on their workers, waiting for a place in a batch included; parallel ones add up."""
    money: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    prices: dict[str, Price] = Field(default_factory=dict)
    """Model → its price; needed for every model of the table where `money` is limited."""


class Usage(WireRecord):
    """What calls of one action on one model have used."""

    action: str
    model: str
    calls: int = 1
    """Answers, samples included."""
    visits: int = 0
    """How many of the action's visits these are."""
    visit: int = 0
    """The visit they belong to, from 1; 0: to several."""
    prompt_tokens: int = 0
    tokens: int = 0
    """Generated."""
    seconds: NonNegative = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return self.model_copy(
            update={
                name: getattr(self, name) + getattr(other, name)
                for name in ("calls", "visits", "prompt_tokens", "tokens", "seconds")
            }
        )


class Spent(WireRecord):
    """Tokens, seconds and money; money is None where a price is not known."""

    calls: int = 0
    tokens: int = 0
    seconds: NonNegative = 0.0
    money: NonNegative | None = 0.0


class BudgetState(WireRecord):
    """A budget as a decision met it."""

    spent: Spent
    tokens_left: int | None = None
    """Negative where the last call went over; None: no limit. So with the others."""
    seconds_left: float | None = None
    money_left: float | None = None


def of_trace(trace: ThoughtTrace) -> Usage:
    """What the call that gave a trace used; never raises, as everything that a decision reads."""
    tokens, moved = getattr(trace, "tokens", None), getattr(trace, "quantiles", None)
    # Tokens that moved to an artifact leave their count behind in the quantiles of their numbers.
    counts = (
        [found.count for found in moved.values() if isinstance(found, Quantiles)] if isinstance(moved, dict) else []
    )
    prompt, model = getattr(trace, "prompt_tokens", None), getattr(trace, "model", None)
    seconds = getattr(getattr(trace, "timings", None), "total_s", None)
    samples = getattr(trace, "samples", None)
    beside = samples if isinstance(samples, SampleSummary) else None
    answers = 1 + (beside.count + beside.failed if beside else 0)
    return Usage(
        action=trace.action,
        model=model if isinstance(model, str) else "",
        calls=answers,
        visits=1,
        prompt_tokens=prompt * answers if isinstance(prompt, int) else 0,
        tokens=((len(tokens) if isinstance(tokens, list) else 0) or max(counts, default=0))
        + (beside.generated_tokens if beside else 0),
        seconds=seconds if isinstance(seconds, float) and 0 <= seconds < math.inf else 0.0,
    )


def merged(usages: Iterable[Usage]) -> list[Usage]:
    """One entry per action, model and visit."""
    found: dict[tuple[str, str, int], Usage] = {}
    for usage in usages:
        key = (usage.action, usage.model, usage.visit)
        found[key] = found[key] + usage if key in found else usage
    return list(found.values())


def total(usages: Iterable[Usage], budget: Budget | None) -> Spent:
    """The sum, and what it costs at the budget's prices."""
    usages = list(usages)
    return Spent(
        calls=sum(usage.calls for usage in usages),
        tokens=sum(usage.prompt_tokens + usage.tokens for usage in usages),
        seconds=sum(usage.seconds for usage in usages),
        money=cost(usages, budget),
    )


def cost(usages: Sequence[Usage], budget: Budget | None) -> float | None:
    """Money for these calls; None where a model that was used has no price."""
    money = 0.0
    for usage in usages:
        price = budget.prices.get(usage.model) if budget else None
        if price is None:
            if usage.prompt_tokens or usage.tokens or usage.seconds:
                return None
            continue
        money += (
            usage.prompt_tokens * price.per_million_prompt_tokens + usage.tokens * price.per_million_tokens
        ) / 1e6 + usage.seconds * price.per_second
    return money


def state(budget: Budget, spent: Spent) -> BudgetState:
    """What is left."""
    return BudgetState(
        spent=spent,
        tokens_left=None if budget.tokens is None else budget.tokens - spent.tokens,
        seconds_left=None if budget.seconds is None else budget.seconds - spent.seconds,
        money_left=None if budget.money is None or spent.money is None else budget.money - spent.money,
    )


def why_not(budget: Budget, spent: Spent, coming: Spent) -> str:
    """Why a call that uses `coming` does not fit any more; empty where it does.

    A limit that is reached leaves room for nothing, and what a call will cost is unknown without a price: then it does
    not fit either.
    """
    if budget.money is not None and (spent.money is None or coming.money is None):
        return "a model that was used has no price in the budget"
    for name, limit, used, needed in (
        ("tokens", budget.tokens, spent.tokens, coming.tokens),
        ("seconds", budget.seconds, spent.seconds, coming.seconds),
        ("money", budget.money, spent.money or 0.0, coming.money or 0.0),
    ):
        if limit is not None and (used >= limit or used + needed > limit):
            more = f", and the next call needs about {needed:.4g}" if needed else ""
            return f"the run has used {used:.4g} of {limit:.4g} {name}{more}"
    return ""
