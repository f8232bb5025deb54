"""Puts the measured rows into the README, between its `figures` markers: `python -m benchmarks._readme`."""

import json
import re
from pathlib import Path
from statistics import fmean

from benchmarks._results import RESULTS

README = Path(__file__).parent.parent / "README.md"
CONFIDENCE = README.parent / "docs" / "confidence.md"
LENSES = README.parent / "docs" / "lenses.md"
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
    "lens, readable, 150 s: variance explained",
    "lens, readable, 150 s: KL recovered",
    "lens, readable, 6 min: variance explained",
    "lens, readable, 6 min: distinct texts",
    "lens, readable, 6 min: over an encoder of the true words",
    "lens, readable, 6 min: over ridge on the true words",
    "lens, two-pass straight-through: variance explained",
    "lens, recurrent straight-through: variance explained",
    "replacement by the short way: times less processor time",
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


def lens_lines() -> list[str]:
    """Markdown tables of every method that `benchmarks.lens` has trained, means over its seeds, and some texts."""
    path = RESULTS / "lens.json"
    if not path.exists():
        return ["Not measured yet: `make bench-lens`."]
    seeds = list(json.loads(path.read_text())["seeds"].values())

    def mean(name: str, *way: str) -> float:
        found = [seed["methods"][name] for seed in seeds if name in seed["methods"]]
        for part in way:
            found = [value[part] for value in found]
        return fmean(found)

    numbers = {1: "one seed", 2: "two seeds", 3: "three seeds"}
    heads = ("method", "CPU s", "FVE", "drawn texts", "shuffled", "KL recovered", "nats per word", "distinct", "true")
    told = [
        f"Means over {numbers.get(len(seeds), f'{len(seeds)} seeds')}.",
        "",
    ]
    told += [f"| {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) - 1)]
    for name in seeds[0]["methods"]:
        if name == "true words":  # its decoder learns nothing
            continue
        ways = (("fve", "value"), ("fve_sampled",), ("fve_shuffled",), ("kl_recovered", "value"), ("nll",))
        cells = [f"{mean(name, 'cpu_s'):.0f}", *(f"{mean(name, *way):.3f}" for way in ways)]
        cells += [f"{mean(name, way):.0%}" for way in ("distinct", "said")]
        told.append(f"| {name} | {' | '.join(cells)} |")
    quoted, any_name = mean("true words", "fve_tail"), next(iter(seeds[0]["methods"]))
    lasts = [fmean(seed["baselines"][f"ridge_{k}"] for seed in seeds) for k in (1, 2, 4, 8)]
    told += [
        "",
        f"Without a lens: the true last eight words explain {quoted:.3f} by an encoder trained on them; by ridge, the "
        f"last 1, 2, 4 and 8 of them {', '.join(f'{value:.3f}' for value in lasts)}. True words cost "
        f"{mean(any_name, 'nll_tail'):.2f} nats each under the target, random ones {mean(any_name, 'nll_random'):.2f}.",
        "",
        "| what the story is about | chance | activation | reconstruction | text | true last words |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    name = "readable, 6 min"
    for kind in seeds[0]["methods"][name]["probes"]:
        sources = ("chance", "activation", "reconstruction", "text", "true last words")
        cells = [f"{mean(name, 'probes', kind, source):.2f}" for source in sources]
        told.append(f"| {kind} | {' | '.join(cells)} |")
    told += ["", "| context | readable, 6 min | two-pass straight-through |", "|---|---|---|"]
    pairs = zip(*(seeds[0]["methods"][one]["samples"] for one in (name, "two-pass straight-through")), strict=True)
    told += [f"| … {one['context']} | {one['text']} | {other['text']} |" for one, other in pairs]
    return told


def main() -> None:
    """Rewrite the README, and the leaderboards in the documentation."""
    _fill(README, "figures", lines())
    _fill(LENSES, "proof", lens_lines())
    _fill(CONFIDENCE, "leaderboards", leaderboard_lines())


def _fill(path: Path, name: str, told: list[str]) -> None:
    text, body = path.read_text(), "\n".join(told)
    between = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=\n<!-- end of {name} -->)", re.DOTALL)
    path.write_text(between.sub(lambda _: body, text))


if __name__ == "__main__":
    main()
