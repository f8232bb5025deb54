"""On the embedded model, whose world is known, confidence means what it says."""

from statistics import median
from typing import Any

import pytest

from wonder.embedded.world import prompt, tickets
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling

TICKETS = [ticket for ticket in tickets(160, seed=5, split="held_out") if ticket.kind in ("clear", "unseen", "legal")]


@pytest.fixture(scope="module")
def traces() -> list[Any]:
    engine = TraceEngine.load(device="cpu")
    capture = ThoughtCapture(run_concept_probes=["legal_risk"], value_fields=["team"])
    messages = engine.generate(
        [
            Request(
                prompt=prompt(ticket.text), capture=capture, answer_format="json", sampling=Sampling(max_new_tokens=24)
            )
            for ticket in TICKETS
        ]
    )
    return [message.thought_trace for message in messages]  # type: ignore[union-attr]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def of(kind: str, traces: list[Any]) -> list[Any]:
    return [trace for trace, ticket in zip(traces, TICKETS, strict=True) if ticket.kind == kind]


def test_every_answer_has_its_two_values(traces: list[Any]) -> None:
    assert all(set(trace.field_confidences) == {"team", "urgency"} for trace in traces)
    assert all(trace.confidence_status == "uncalibrated" for trace in traces)


def test_a_clear_ticket_is_sure_and_one_about_something_unseen_is_not(traces: list[Any]) -> None:
    assert mean([trace.overall_confidence for trace in of("clear", traces)]) > 0.95
    assert mean([trace.overall_confidence for trace in of("unseen", traces)]) < 0.4


def test_the_concept_is_found_where_it_is(traces: list[Any]) -> None:
    legal = [trace.active_concepts["legal_risk"] for trace in of("legal", traces)]
    clear = [trace.active_concepts["legal_risk"] for trace in of("clear", traces)]
    pairs = [1.0 if there > absent else 0.5 * (there == absent) for there in legal for absent in clear]
    assert mean(pairs) > 0.97  # the AUROC that the model card promises
    assert median(legal) > 0.8
    assert mean(clear) < 0.2
