"""What a table means, in one spelling: tables with equal digests decide alike."""

import json
from collections.abc import Collection, Mapping, Sequence

from wonder.routing.rows import Row
from wonder.routing.transition import HitPolicy, TableSpec

_FIRST = {"from_", "to", "condition", "name", "priority", "on_unknown", "requires_status", "max_visits"}
"""Settings of a row that are spelt one by one; what came later is spelt only where it is used, so that the digests of
earlier tables stay."""


def canonical(
    spec: TableSpec,
    rows: Mapping[str, Sequence[Row]],
    policies: Mapping[str, HitPolicy],
    limits: Mapping[str, int],
    reviews: Collection[str],
) -> str:
    """The canonical text of a table.

    Args:
        spec: The table as data.
        rows: Action → all its rows in the order in which they are looked at.
        policies: Action → its hit policy.
        limits: Action → how often it may run.
        reviews: The targets at which a person looks.
    """
    groups: list[list[object]] = []
    for after, group in sorted(rows.items()):
        said = [
            (row.digest, item.targets, item.on_unknown, item.requires_status, item.max_visits, *_later(row))
            for row in group
            for item in (row.transition,)
        ]
        groups.append([after, policies[after], limits.get(after), said])
    text: list[object] = [1, groups, spec.on_unknown, spec.on_loop_limit]
    later = spec.model_dump(mode="json", include={"audit_rate", "budget", "on_exhausted"}, exclude_defaults=True)
    audits = spec.audit_rate or any(row.transition.audit_rate for group in rows.values() for row in group)
    if later or audits:
        text.append({**later, **({"reviews": sorted(reviews)} if audits else {})})
    return json.dumps(text, ensure_ascii=True, sort_keys=True)


def _later(row: Row) -> list[dict[str, object]]:
    found = row.transition.model_dump(mode="json", exclude=_FIRST, exclude_defaults=True)
    if row.until is not None:
        found["holds_until"] = row.until.digest
    return [found] if found else []
