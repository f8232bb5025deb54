"""Puts the measured rows into the README, between its `figures` markers: `python -m benchmarks._readme`."""

import json
import re
from pathlib import Path

from benchmarks._results import RESULTS

README = Path(__file__).parent.parent / "README.md"
CONFIDENCE = README.parent / "docs" / "confidence.md"
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
    "binned trace, 32 layers x 256 tokens, KB",
    "full trace over plain generate, 2048-token prompt, attention in all layers",
    "full trace over plain generate, 1024-token prompt, attention in a quarter of the layers",
    "own loop traced over plain, 2048 × 8, attention in a quarter of layers",
    "own loop traced over plain, 2048 × 8, attention in all layers",
    "24 ragged requests (traced, a quarter of the layers) vs static left-padded batches, 16 rows",
    "24 ragged requests (traced, all layers) vs sequential generate, 16 rows",
    "kernels added per decode step, 32 layers, attention in all layers, one row",
    "closed world: AUROC of the best signal",
    "closed world: PRR@50 of the best signal",
    "ECE from 200 labels, value_probability",
    "certified risk exceeded, worst of 12 cells",
    "certified coverage beside the oracle, n = 1000, α = 0.1",
    "confidence gap among the accepted, 2% audited",
    "drift detected in the negative control",
    "claim of close alternatives: AUROC",
    "claim of close alternatives: called supported where it is false",
    "backtest of 100,000 decisions, seconds",
    "team accuracy gained by text and a soft prompt over text, lower end",
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


def leaderboard_lines() -> list[str]:
    """Markdown tables of the leaderboards that `benchmarks.confidence` has written."""
    path = RESULTS / "confidence.json"
    if not path.exists():
        return ["Not measured yet: `make bench-confidence`."]
    told = []
    for board in json.loads(path.read_text())["leaderboards"]:
        at, budget = f"{board['threshold']:g}", f"{board['budget']:.0%}"
        told += [
            f"**{board['name'].capitalize()}**: {board['questions']:,} questions, {board['wrong']:,} answered wrong.",
            "",
            f"| signal | AUROC | PRR@50 | AURC | ECE | Brier | caught < {at} | reviewed < {at} | caught in {budget} |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for found in board["standings"]:
            numbers = [found[name] for name in ("auroc", "prr_50", "aurc", "ece", "brier")]
            shares = [found[name] for name in ("caught_at_threshold", "reviewed_at_threshold", "caught_at_budget")]
            cells = ["–" if value is None else f"{value:.3f}" for value in numbers]
            cells += [f"{value:.1%}" for value in shares]
            told.append(f"| `{found['signal']}` | {' | '.join(cells)} |")
        told.append("")
    return told[:-1]


def main() -> None:
    """Rewrite the README, and the leaderboards in the documentation."""
    _fill(README, "figures", lines())
    _fill(CONFIDENCE, "leaderboards", leaderboard_lines())


def _fill(path: Path, name: str, told: list[str]) -> None:
    text, body = path.read_text(), "\n".join(told)
    between = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=\n<!-- end of {name} -->)", re.DOTALL)
    path.write_text(between.sub(lambda _: body, text))


if __name__ == "__main__":
    main()
