"""Turns a whole trace into a binned one: a few KB, however long the answer was."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from wonder.trace.bins import BinnedTable, TimeBins, lowest, means
from wonder.trace.schema import ThoughtTrace, TokenDoubt

DOUBTS: Final = 3
"""How many of the least certain tokens are told one by one."""
PAIRS: Final = 4
"""How many of the strongest attention pairs stay."""
TOKEN_ROWS: Final = (
    "token_confidences",
    "logits_entropy",
    "token_log_probs",
    "token_margins",
    "generation_probs",
    "top5_negentropy",
    "self_certainty",
    "boosted_probs",
)
"""Rows of the table `tokens`: means per bin."""
BINNED: Final = (
    "tokens",
    *TOKEN_ROWS,
    "top_alternatives",
    "expert_distribution",
    "expert_selections",
)
"""Fields that a binned trace does not carry."""
WHERE: Final = "binned: see time_bins"


def time_bins(trace: ThoughtTrace, bins: int, layers: Mapping[str, Mapping[str, Sequence[float | None]]]) -> TimeBins:
    """Summaries of a whole trace.

    Args:
        trace: With all its lists over tokens.
        bins: Wanted; never more than there are tokens.
        layers: Table → layer → mean of each bin.
    """
    count = len(trace.tokens)
    bins = max(1, min(bins, count))
    rows = {name: means(values, bins) for name in TOKEN_ROWS if (values := getattr(trace, name))}
    if trace.token_confidences:
        rows["lowest_confidence"] = lowest(trace.token_confidences, bins)
    tables = {"tokens": rows, **layers, "expert_distribution": trace.expert_distribution}
    return TimeBins(
        tokens=count,
        bins=bins,
        tables={name: BinnedTable.of(table) for name, table in tables.items() if table},
    )


def binned(trace: ThoughtTrace) -> ThoughtTrace:
    """A trace with `time_bins`, without what those stand for; the numbers made of it were made before."""
    pairs = sorted(trace.key_attention_pairs, key=lambda pair: -pair.weight)[:PAIRS]
    update: dict[str, Any] = {
        **{name: ThoughtTrace.model_fields[name].get_default(call_default_factory=True) for name in BINNED},
        "least_certain": _doubts(trace),
        "key_attention_pairs": sorted(pairs, key=lambda pair: (pair.layer, -pair.weight)),
    }
    missing = {name: why for name, why in trace.missing.items() if name not in BINNED} | {"detail": WHERE}
    if len(pairs) < len(trace.key_attention_pairs):
        missing["key_attention_pairs"] = f"the {PAIRS} strongest of {len(trace.key_attention_pairs)}"
    return trace.model_copy(update={**update, "missing": missing})


def _doubts(trace: ThoughtTrace) -> list[TokenDoubt]:
    def sure(at: int) -> float:
        known = trace.token_confidences[at] if at < len(trace.token_confidences) else None
        return -1.0 if known is None else known

    return [
        TokenDoubt(
            index=at,
            token=trace.tokens[at],
            confidence=trace.token_confidences[at] if at < len(trace.token_confidences) else None,
            alternatives=trace.top_alternatives[at] if at < len(trace.top_alternatives) else [],
        )
        for at in sorted(range(len(trace.tokens)), key=sure)[:DOUBTS]
    ]
