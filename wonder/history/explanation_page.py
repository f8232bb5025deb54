"""An explanation as one page, with nothing to load: for an auditor who has no terminal."""

import json
from collections.abc import Mapping
from html import escape

from wonder.history.explaining import RuleExplanation, RunExplanation, StepExplanation
from wonder.history.explanation_text import distance, figure, how_sure
from wonder.routing.explain import short_text
from wonder.trace.explanation import Explanation, described

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.3rem; word-break: break-all } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem }
section { border: 1px solid #dfe3e6; border-radius: 8px; padding: .2rem 1.2rem 1rem; margin: 1rem 0 }
pre { background: #f6f7f8; padding: .6rem .8rem; border-radius: 6px; white-space: pre-wrap; word-break: break-word }
dl { display: grid; grid-template-columns: 9rem 1fr; gap: .3rem 1rem } dt { color: #5d6d7e } dd { margin: 0 }
table { border-collapse: collapse; width: 100% }
td { padding: .3rem .6rem; border-top: 1px solid #e9ecee; vertical-align: top }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.bar { display: inline-block; height: .55rem; background: #1f618d; border-radius: 3px; vertical-align: middle }
.track { display: inline-block; width: 8rem; background: #e9ecee; border-radius: 3px; line-height: .55rem }
.fired { background: #eaf2f8; font-weight: 600 } .small { color: #5d6d7e; font-size: .88rem; font-weight: 400 }
.unknown { color: #9c640c } code { font-size: .92em } details { margin-top: .6rem }
.decision { font-size: 1.05rem; border-left: 4px solid #1f618d; padding-left: .8rem }
"""


def page(found: RunExplanation) -> str:
    """The whole run."""
    steps = "".join(_step(step) for step in found.steps) or "<p>no model call yet</p>"
    title = escape(f"Run {found.run}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>{steps}"
        f"<p class=small>{escape(found.written_by)}</p></body></html>\n"
    )


def _step(step: StepExplanation) -> str:
    answer = step.answer if isinstance(step.answer, str) else json.dumps(step.answer, ensure_ascii=False, indent=1)
    again = f" · visit {step.visit}" if step.visit > 1 else ""
    sure = "<br>".join(escape(line) for line in how_sure(step))
    parts = [
        f"<section><h2>{escape(step.action)}{again}</h2><pre>{escape(answer or '–')}</pre>",
        f"<dl><dt>confidence</dt><dd>{_bar(step.confidence)} {sure}</dd>",
        *(
            _entry("claim", f"{name}: {claim.verdict or 'may not decide'}", claim.reason)
            for name, claim in step.claims.items()
        ),
        *(_guess(found) for found in step.explanations),
        "</dl>",
    ]
    if step.decision is not None:
        looked = f"The chance that a person would look at this answer was {step.decision.propensity:.0%}"
        looked += ", and it was drawn for an audit." if step.decision.audit else "."
        parts.append(f"<p class=decision>{escape(step.decision.explanation)}<br><span class=small>{looked}</span></p>")
        parts.append(f"<table>{''.join(_rule(rule) for rule in step.rules)}</table>")
    parts += [
        _numbers("signals", step.signals),
        _numbers("fields", step.fields),
        _numbers("concepts", step.concepts),
        _texts("versions", step.versions),
        _texts("not known, and why", step.missing),
        "</section>",
    ]
    return "".join(parts)


def _rule(rule: RuleExplanation) -> str:
    details = [distance(found) for found in rule.distances]
    unknown = [f"{short_text(path)} is unknown: {why}" for path, why in rule.unknown.items()]
    told = "".join(f"<br><span class=small>{escape(line)}</span>" for line in details)
    told += "".join(f'<br><span class="small unknown">{escape(line)}</span>' for line in unknown)
    cls = ' class="fired"' if rule.fired else ""
    return (
        f"<tr{cls}><td><code>{escape(rule.condition)}</code>{told}</td><td>{escape(' and '.join(rule.to))}</td>"
        f"<td>{'fired' if rule.fired else rule.outcome}</td></tr>"
    )


def _numbers(title: str, values: Mapping[str, float | None]) -> str:
    if not values:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name or 'the answer')}</td><td class=n>{figure(value)}</td><td>{_bar(value)}</td></tr>"
        for name, value in values.items()
    )
    return f"<details open><summary>{escape(title)}</summary><table>{rows}</table></details>"


def _texts(title: str, values: Mapping[str, str]) -> str:
    if not values:
        return ""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in values.items())
    return f"<details><summary>{escape(title)}</summary><table>{rows}</table></details>"


def _entry(name: str, value: str, detail: str) -> str:
    return f"<dt>{escape(name)}</dt><dd>{escape(value)}<br><span class=small>{escape(detail)}</span></dd>"


def _guess(found: Explanation) -> str:
    cls = ' class="unknown"' if found.is_weak else ""
    told = f"“{found.text}” (before {found.token!r}, token {found.position})"
    return (
        f"<dt>in words</dt><dd{cls}>{escape(told)} {_bar(found.reconstruction)}"
        f"<br><span class=small>{escape(described(found))}</span></dd>"
    )


def _bar(value: float | None) -> str:
    if value is None or not 0 <= value <= 1:
        return ""
    return f'<span class=track><span class=bar style="width:{value:.1%}"></span></span>'
