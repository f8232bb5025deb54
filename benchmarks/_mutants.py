"""Every name that a condition can read, and what becomes of it under a slip of the finger."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from wonder.errors import ConditionError
from wonder.routing.kinds import Kind, fields_of
from wonder.routing.table import TransitionTable
from wonder.routing.transition import Transition
from wonder.trace.capture import ThoughtCapture
from wonder.trace.schema import ThoughtTrace
from wonder.trace.signals import SIGNALS


class Customer(BaseModel):
    """A part of a state."""

    name: str = ""
    orders: int = 0


class State(BaseModel):
    """What a workflow might keep."""

    customer: Customer
    amount: float
    channel: str
    tags: list[str]


class Triage(BaseModel):
    """What an action might answer."""

    team: Literal["billing", "sales"]
    urgency: str
    refund: float


@dataclass(frozen=True)
class Named:
    """A claim as far as routing knows it."""

    name: str


class Classify:
    """An action as far as routing knows it."""

    name = "classify"
    output = Triage
    claims = (Named("k"), Named("alternatives"))
    thought_capture = ThoughtCapture(
        compute_attention_entropy=True,
        compute_attention_statistics=True,
        logit_lens=True,
        run_concept_probes=["legal_risk", "fraud", "anger"],
        samples=5,
        boosted_probability=True,
    )


def build(path: str) -> TransitionTable:
    """A table with one condition that reads this.

    The table knows the action where that decides which names there are: of its answer, concepts, signals and claims.
    The fields of a trace are there without it, those that the action leaves empty too.
    """
    rows = [
        Transition(from_="classify", to="human_review", condition=f"not known({path})"),
        Transition(from_="classify", to="resolve", condition="otherwise"),
    ]
    named = path.startswith(
        ("output.", "thought_trace.active_concepts.", "thought_trace.signals.", "thought_trace.claims.")
    )
    actions = [Classify()] if named else []
    return TransitionTable(rows, actions=actions, ends=["human_review", "resolve"], state=State)


def paths() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Where a name stands, the name, and the names that may stand there too."""
    for root, model in (("thought_trace", ThoughtTrace), ("state", State), ("output", Triage)):
        yield from _fields(root, Kind("object", model=model), depth=0)
    for parent, names in (
        ("thought_trace.active_concepts", tuple(Classify.thought_capture.run_concept_probes)),
        ("thought_trace.signals", tuple(SIGNALS)),
        ("thought_trace.claims", tuple(claim.name for claim in Classify.claims)),
    ):
        for name in names:
            yield parent, name, names


def _fields(prefix: str, kind: Kind, depth: int) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    found = fields_of(kind.model) if kind.name == "object" and kind.model else None
    if found is None:
        return
    for name, part in found.items():
        yield prefix, name, tuple(found)
        inside = part.item if part.name in ("list", "map") and part.item is not None else part
        step = "[0]" if part.name == "list" else '["k"]' if part.name == "map" else ""
        if depth < 2 and inside.name == "object":
            yield from _fields(f"{prefix}.{name}{step}", inside, depth + 1)


def mutants(name: str) -> Iterator[str]:
    """The name with one letter lost, doubled, swapped, replaced or in the wrong case, and a few common slips."""
    for at in range(len(name)):
        yield name[:at] + name[at + 1 :]
        yield name[: at + 1] + name[at:]
        yield name[:at] + ("x" if name[at] != "x" else "y") + name[at + 1 :]
        yield name[:at] + name[at + 1 : at + 2] + name[at] + name[at + 2 :]
        yield name[:at] + name[at].upper() + name[at + 1 :]
    yield from (name + "s", name.rstrip("s"), name.replace("_", ""), name.title().replace("_", ""), f"my_{name}")


def refused(path: str) -> bool:
    """Whether a table that reads this cannot be built, because of the condition."""
    try:
        build(path)
    except ConditionError:
        return True
    return False


def survey(every: int = 1) -> tuple[int, list[str], list[str]]:
    """Try the mutants (every n-th of them).

    Returns:
        How many were tried, those that were not refused, and the right names that were.
    """
    tried, survived, wrongly = 0, [], []
    for number, (parent, name, siblings) in enumerate(paths()):
        if refused(f"{parent}.{name}"):
            wrongly.append(f"{parent}.{name}")
        wrong = (found for found in mutants(name) if found.isidentifier() and found not in siblings and found[0] != "_")
        for mutant in sorted(set(wrong))[number % every :: every]:
            tried += 1
            if not refused(f"{parent}.{mutant}"):
                survived.append(f"{parent}.{mutant}")
    return tried, survived, wrongly
