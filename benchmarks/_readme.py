"""Puts the measured rows into the README, between its `figures` markers: `python -m benchmarks._readme`."""

import json
import re
from pathlib import Path

from benchmarks._results import RESULTS

README = Path(__file__).parent.parent / "README.md"
QUOTED = (
    "bare machine to the end of make demo",
    "second run of make demo",
    "errors caught at confidence < 0.7",
    "answers reviewed at confidence < 0.7",
    "ECE of the confidence",
    "AUROC of the confidence",
    "AUROC of the legal_risk probe",
    "act() over a bare activity, time ratio",
    "act() over a bare activity, processor time ratio",
    "condition evaluations per second on one core: thought_trace.overall_confidence < 0.7",
    "table build with full checking, ms",
    "512-token full trace encoded, KB",
    "workflow history of one reviewed triage run",
)


def lines() -> list[str]:
    """A Markdown table of the quoted rows, values as the benchmarks print them."""
    rows = {row["figure"]: row for path in RESULTS.glob("*.json") for row in json.loads(path.read_text())["rows"]}
    told = ["| figure | measured | to reach |", "|---|---|---|"]
    for name in QUOTED:
        if name in rows:
            row = rows[name]
            value = f"{row['value']:,.4g} {row['unit']}".strip()
            told.append(f"| {name} | {value} | {row['reach']} |")
    return told


def main() -> None:
    """Rewrite the README."""
    text = README.read_text()
    body = "\n".join(lines())
    between = re.compile(r"(?<=<!-- figures -->\n).*?(?=\n<!-- end of figures -->)", re.DOTALL)
    marked = between.sub(lambda _: body, text)
    README.write_text(marked)


if __name__ == "__main__":
    main()
