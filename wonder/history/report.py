"""A backtest in words: for a terminal, and as a page with its picture."""

from html import escape

from wonder.history.backtest import Backtest, Policy
from wonder.history.picture import load_error_svg


def text_report(found: Backtest) -> str:
    """The report for a terminal."""
    lines = [*_heading(found), "", f"{'':26}{'today':>16}{'proposed':>16}"]
    lines += [f"{name:26}{today:>16}{proposed:>16}" for name, today, proposed in _table(found)]
    lines += ["", *_warnings(found)]
    if found.changes:
        lines.append(f"{found.changed:,} decisions ({found.changed / found.today.decisions:.1%}) would go elsewhere:")
        for change in found.changes:
            judged = f"   {change.wrong} of {change.judged} judged were wrong" if change.judged else ""
            lines.append(f"  {change.count:>8,}  after {change.after}: {change.before} → {change.now}{judged}")
            lines.append(f"            {', '.join(change.runs[:3])}{' …' if change.count > 3 else ''}")
    else:
        lines.append("no decision would go elsewhere")
    return "\n".join(lines) + "\n"


def html_report(found: Backtest) -> str:
    """The report as one page, with nothing to load."""
    rows = "".join(
        f"<tr><th{' class=sub' if name.startswith(' ') else ''}>{escape(name)}</th>"
        f"<td>{escape(today)}</td><td>{escape(proposed)}</td></tr>"
        for name, today, proposed in _table(found)
    )
    changes = "".join(
        f"<tr><td class=n>{change.count:,}</td><td>{escape(change.after)}</td><td>{escape(change.before)}</td>"
        f"<td>{escape(change.now)}</td>"
        f"<td class=n>{f'{change.wrong} of {change.judged}' if change.judged else '–'}</td>"
        f"<td class=runs>{escape(', '.join(change.runs))}</td></tr>"
        for change in found.changes
    )
    title, *rest = _heading(found)
    warnings = "".join(f"<p class=warn>{escape(line)}</p>" for line in _warnings(found) if line)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
h1 {{ font-size: 1.3rem }} h2 {{ font-size: 1.05rem; margin-top: 2rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .35rem .7rem; border-bottom: 1px solid #e3e6e8; vertical-align: top }}
td, thead th {{ font-variant-numeric: tabular-nums }} .n {{ text-align: right; white-space: nowrap }}
.sub {{ font-weight: 400; padding-left: 1.8rem; color: #5d6d7e }}
.runs {{ color: #5d6d7e; font-size: .85rem; word-break: break-word }}
.warn {{ background: #fef5e7; border-left: 3px solid #b9770e; padding: .4rem .8rem }}
svg {{ max-width: 100%; height: auto }}
</style></head><body>
<h1>{escape(title)}</h1><p>{escape(" ".join(rest))}</p>{warnings}
<table><thead><tr><th></th><th>today</th><th>proposed</th></tr></thead><tbody>{rows}</tbody></table>
{load_error_svg(found)}
<h2>{found.changed:,} decisions would go elsewhere</h2>
<table><thead><tr><th class=n>decisions</th><th>after</th><th>today</th><th>proposed</th><th class=n>judged wrong</th>
<th>runs</th></tr></thead><tbody>{changes}</tbody></table>
</body></html>
"""


def _heading(found: Backtest) -> list[str]:
    period = f", {found.since:%Y-%m-%d} to {found.until:%Y-%m-%d}" if found.since and found.until else ""
    return [f"backtest of {found.table}", f"{found.today.decisions:,} decisions{period}"]


def _table(found: Backtest) -> list[tuple[str, str, str]]:
    both = (found.today, found.proposed)
    rows = [
        ("sent to a person", *(f"{policy.load:.1%}" for policy in both)),
        ("  of 1,000 decisions", *(f"{1000 * policy.load:.0f}" for policy in both)),
        ("wrong among the accepted", *(_error(policy) for policy in both)),
        ("  95 % interval", *(_interval(policy) for policy in both)),
        ("  judged answers", *(f"{policy.error.labels:,}" for policy in both)),
        ("accepted, never seen", *(f"{policy.unseen:,}" for policy in both)),
    ]
    if found.today.retried or found.proposed.retried:
        rows.append(("tried again first", *(f"{policy.retried:,}" for policy in both)))
    if found.costs is not None:
        costs = found.costs
        rows.append(("cost of 1,000 decisions", *(_money(costs.per_thousand(policy)) for policy in both)))
        rows.append(
            (
                "  95 % interval",
                *(
                    "–"
                    if policy.error.value is None
                    else f"{_money(costs.per_thousand(policy, policy.error.low))}–"
                    f"{_money(costs.per_thousand(policy, policy.error.high))}"
                    for policy in both
                ),
            )
        )
    return [(name, today, proposed) for name, today, proposed in rows]


def _error(policy: Policy) -> str:
    return "not known" if policy.error.value is None else f"{policy.error.value:.2%}"


def _interval(policy: Policy) -> str:
    return "–" if policy.error.value is None else f"{policy.error.low:.2%}–{policy.error.high:.2%}"


def _money(amount: float | None) -> str:
    return "not known" if amount is None else f"{amount:,.0f}"


def _warnings(found: Backtest) -> list[str]:
    told = []
    for name, policy in (("today", found.today), ("proposed", found.proposed)):
        accepted = policy.decisions - policy.reviewed
        if accepted and policy.unseen == accepted:
            told.append(
                f"{name}: no accepted answer had a chance to be looked at, so their error is not known: "
                "give the table an audit_rate and come back"
            )
        elif accepted and policy.unseen / accepted > 0.01:
            told.append(
                f"{name}: {policy.unseen:,} accepted answers ({policy.unseen / accepted:.0%}) had no chance to be "
                "looked at; the error is that of the others"
            )
    told += [
        f"{count:,} decisions after {action!r} were left out: the table has no rows for them"
        for action, count in found.skipped.items()
    ]
    told += [
        f"{count:,} decisions go to a person because something is not known: {why}"
        for why, count in list(found.unknown.items())[:5]
    ]
    return [*told, ""] if told else []
