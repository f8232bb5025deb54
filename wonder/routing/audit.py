"""Audits: a random share of the accepted answers is reviewed as well, not only what is in doubt."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from wonder.routing.rows import Row
from wonder.routing.transition import TableSpec


@dataclass(frozen=True, slots=True)
class Audit:
    """Whether a person looks at an answer: by decision, by chance, or not at all."""

    propensity: float
    """Chance that a person looks at it, in [0, 1], as it was before the draw."""
    drawn: bool


def judge(*, accepted: bool, reviewed: bool, rate: float, draw: float | None) -> Audit:
    """The audit of one decision.

    Args:
        accepted: Whether the answer goes on with nobody looking at it.
        reviewed: Whether the decision itself sends it to a person: then no draw can change that.
        rate: Share of the accepted answers to audit, in [0, 1].
        draw: A number in [0, 1); None: nobody drew, so nothing is audited, and the chance of it was 0.
    """
    if reviewed:
        return Audit(1.0, drawn=False)
    if not accepted or draw is None:
        return Audit(0.0, drawn=False)
    return Audit(rate, drawn=draw < rate)


def draw(key: str, after: str, visit: int, table_digest: str) -> float:
    """A number in [0, 1): uniform over keys, always the same for one key, action, visit and table.

    `key` is the run's random seed, which the Temporal server gives when the run starts and again when it is reset:
    whoever writes the input or chooses the workflow id cannot foresee it, and a replay meets the same one. It is hashed
    rather than taken from `workflow.random()`, so that an audit does not shift the numbers an author draws from there.
    """
    digest = hashlib.sha256("\0".join((key, after, str(visit), table_digest)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53


def review_nodes(spec: TableSpec) -> frozenset[str]:
    """The targets at which a person looks: those the table lists, else those that unknown goes to."""
    if spec.reviews is not None:
        return frozenset(spec.reviews)
    return frozenset(target for target in (spec.on_unknown, *(row.on_unknown for row in spec.rows)) if target)


def rate_of(spec: TableSpec, row: Row | None) -> float:
    """The audit rate of a row, else that of the table."""
    if row is not None and row.transition.audit_rate is not None:
        return row.transition.audit_rate
    return spec.audit_rate


def is_accepted(after: str, targets: Collection[str], reviews: Collection[str]) -> bool:
    """Whether an answer goes on unseen: to no person, and not back to the action for another try."""
    return after not in targets and not set(targets) & set(reviews)
