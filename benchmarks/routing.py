"""How fast conditions and tables are, whether Google's CEL decides alike, and which slips are refused."""

import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median

from benchmarks._cel import compare
from benchmarks._mutants import survey
from benchmarks._results import Row, arguments, report
from wonder.routing.condition import Condition
from wonder.routing.context import Context
from wonder.routing.env import Env
from wonder.routing.table import TransitionTable
from wonder.routing.transition import Transition
from wonder.trace.capture import ThoughtCapture
from wonder.trace.schema import ThoughtTrace

CONFIDENCE = "thought_trace.overall_confidence < 0.7"
CONCEPT = "thought_trace.active_concepts.legal_risk > 0.8"
TRACES = 1000


class Classify:
    """An action as far as routing knows it."""

    name = "classify"
    output = str
    thought_capture = ThoughtCapture(run_concept_probes=["legal_risk", "fraud", "anger"], capture_attention=True)


def traces() -> list[ThoughtTrace]:
    """Validated traces with numbers on both sides of the bounds."""
    return [
        ThoughtTrace(
            action="classify",
            model="m",
            tokens=["billing"],
            token_confidences=[at / TRACES],
            overall_confidence=at / TRACES,
            confidence_status="calibrated",
            active_concepts={"fraud": 0.1, "legal_risk": 1 - at / TRACES, "anger": 0.5},
        )
        for at in range(TRACES)
    ]


def per_second(source: str, rounds: int) -> float:
    """Evaluations per second, the median of repeated passes over all traces."""
    evaluate = Condition.compile(source).evaluate
    envs = [Env(thought_trace=trace) for trace in traces()]

    def run() -> None:
        for env in envs:
            evaluate(env)

    return TRACES / median(timed(run, rounds))


def timed(run: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each of the rounds, after a few that are not counted."""
    for _ in range(5):
        run()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return seconds


def build() -> TransitionTable:
    """A table of ten rows of the kinds that a triage has."""
    classify = Classify()
    fraud = "thought_trace.active_concepts.fraud > 0.9 and state.amount > 500"
    again = "0.4 < thought_trace.overall_confidence < 0.5 and visits < 3"
    risky = 'thought_trace.overall_confidence < threshold("draft", risk=0.05)'
    angry = "max(thought_trace.active_concepts.anger, state.anger) > 0.6"
    rows = [
        Transition(from_=classify, to="legal_review", condition=CONCEPT),
        Transition(from_=classify, to="fraud_desk", condition=fraud),
        Transition(from_=classify, to="classify", condition=again),
        Transition(from_=classify, to="human_review", condition=CONFIDENCE, requires_status="calibrated"),
        Transition(from_=classify, to="human_review", condition="not known(output) or output in ['unknown', 'other']"),
        Transition(from_=classify, to="resolve", condition="otherwise"),
        Transition(from_="draft", to="human_review", condition=risky),
        Transition(from_="draft", to="draft", condition="len(thought_trace.tokens) > 400 and visits < 2"),
        Transition(from_="draft", to="soften", condition=angry),
        Transition(from_="draft", to="resolve", condition="otherwise"),
    ]
    return TransitionTable(rows, ends=["legal_review", "fraud_desk", "human_review", "soften", "resolve"])


def against_cel(conditions: int) -> list[Row]:
    """Random conditions in random worlds, decided by Wonder and by Google's CEL."""
    found = compare(seed=20261120, conditions=conditions)
    if found.first:
        print(found.first, file=sys.stderr)
    how = (
        f"{found.cases} generated cases ({conditions} conditions, each in {found.cases // conditions} worlds; "
        f"{found.unknown} unknown, {found.true} true), CEL by cel-expr-python {version('cel-expr-python')} (C++)"
    )
    return [
        Row("condition cases compared with Google's CEL", found.cases, "cases", ">= 100000", how),
        Row("disagreements with Google's CEL", found.disagreements, "cases", "<= 0", how),
    ]


def misspelt(every: int) -> list[Row]:
    """Tables with a slip in the name of a field, a concept, a signal or a claim."""
    tried, survived, wrongly = survey(every)
    for path in (*survived[:5], *wrongly[:5]):
        print(path, file=sys.stderr)
    how = (
        f"{tried} tables, each reading one mutated name (a letter lost, doubled, swapped, replaced, in the wrong case; "
        f"common slips) of the trace, the state or the answer; of the right names {len(wrongly)} were refused"
    )
    return [Row("mutated names refused when the table is built", 1 - len(survived) / tried, "share", ">= 1", how)]


def main() -> int:
    """Measure and report."""
    rounds = 200 if arguments().quick else 2000
    table = build()
    context = Context(thought_traces=traces()[-1:], state={"amount": 20, "anger": 0.1}, outputs={"classify": "billing"})
    how = f"median of {rounds} passes of the compiled condition over {TRACES} different validated traces, one thread"
    rows = [
        Row(
            f"condition evaluations per second on one core: {source}",
            per_second(source, rounds),
            "/s",
            ">= 2000000",
            how,
        )
        for source in (CONFIDENCE, CONCEPT)
    ]
    builds = median(timed(build, max(20, rounds // 10)))
    rows.append(
        Row(
            "table build with full checking, ms",
            1e3 * builds,
            "ms",
            "<= 5",
            f"median of {max(20, rounds // 10)} builds of a table of 10 rows after 2 actions, one known to the checks",
        )
    )
    decisions = median(timed(lambda: table.evaluate(context, "classify"), rounds))
    rows.append(
        Row("one decision with its record, ms", 1e3 * decisions, "ms", "", f"median of {rounds} decisions over 6 rows")
    )
    rows += against_cel(2_000 if arguments().quick else 20_000)
    rows += misspelt(10 if arguments().quick else 1)
    report("routing", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
