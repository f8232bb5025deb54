"""Further answers to the same prompt, drawn in the same forward passes, and what they agree on."""

import threading
from typing import Any

import pytest

from wonder.embedded.world import prompt, tickets
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.errors import SettingNotSupported
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.schema import AgentMessage, ThoughtTrace

TICKETS = [ticket for ticket in tickets(120, seed=5, split="held_out") if ticket.kind in ("clear", "unseen")]


@pytest.fixture(scope="module")
def engine() -> Any:
    engine = TraceEngine.load(device="cpu", equivalences={"anything goes": lambda one, other: True})  # noqa: ARG005
    yield engine
    engine.close()


def ask(text: str, seed: int | None = 7, **capture: Any) -> Request:
    return Request(
        prompt=prompt(text),
        capture=ThoughtCapture(**{"value_fields": ["team"], "samples": 6, **capture}),
        answer_format="json",
        sampling=Sampling(max_new_tokens=24, seed=seed),
    )


def read(message: Any) -> ThoughtTrace:
    assert isinstance(message, AgentMessage), message
    assert message.thought_trace is not None
    return message.thought_trace


def test_samples_of_a_clear_ticket_agree_and_those_of_an_unknown_one_do_not(engine: TraceEngine) -> None:
    asked = TICKETS[:24]
    traces = [read(m) for m in engine.generate([ask(t.text, confidence_method="semantic_entropy") for t in asked])]
    by_kind = {
        kind: [t.overall_confidence for t, ticket in zip(traces, asked, strict=True) if ticket.kind == kind]
        for kind in ("clear", "unseen")
    }
    assert min(map(len, by_kind.values())) >= 3
    means = {kind: sum(values) / len(values) for kind, values in by_kind.items()}  # type: ignore[arg-type]
    assert means["clear"] > 0.9
    assert means["unseen"] < 0.6


def test_the_answer_and_its_other_readings_are_those_without_samples(engine: TraceEngine) -> None:
    with_samples, without = (read(engine.generate_one(ask(TICKETS[0].text, samples=n))) for n in (6, 0))
    assert with_samples.tokens == without.tokens
    assert with_samples.token_confidences == pytest.approx(without.token_confidences, abs=1e-5)
    assert with_samples.layer_norms == pytest.approx(without.layer_norms, rel=1e-4)
    assert with_samples.overall_confidence == pytest.approx(without.overall_confidence, abs=1e-5)
    assert with_samples.samples is not None
    assert with_samples.samples.count == 6
    assert with_samples.samples.generated_tokens > 6
    assert without.samples is None
    assert {*with_samples.signals} - {*without.signals} == {"self_consistency", "semantic_entropy"}


def test_a_seed_gives_the_same_samples_again_and_its_neighbours_do_not_matter(engine: TraceEngine) -> None:
    unsure = next(ticket for ticket in TICKETS if ticket.kind == "unseen")
    alone = read(engine.generate_one(ask(unsure.text)))
    crowd = engine.generate([ask(ticket.text, seed=at) for at, ticket in enumerate(TICKETS[:4])] + [ask(unsure.text)])
    assert read(crowd[-1]).samples == alone.samples
    assert alone.samples is not None
    assert alone.samples.distinct > 1


def test_an_equivalence_of_the_users_own_decides(engine: TraceEngine) -> None:
    unsure = next(ticket for ticket in TICKETS if ticket.kind == "unseen")
    trace = read(engine.generate_one(ask(unsure.text, equivalence="anything goes")))
    assert trace.samples is not None
    assert (trace.samples.distinct, trace.samples.agreement) == (1, 1.0)


def test_an_unknown_equivalence_is_refused(engine: TraceEngine) -> None:
    with pytest.raises(SettingNotSupported, match="there is anything goes, values"):
        engine.submit(ask("x", equivalence="nli"))


def test_asking_for_agreement_without_samples_is_unknown_and_says_so(engine: TraceEngine) -> None:
    trace = read(engine.generate_one(ask(TICKETS[0].text, samples=0, confidence_method="self_consistency")))
    assert trace.overall_confidence is None
    assert trace.confidence_reason == "no samples were drawn (samples=0)"


def test_cancelling_ends_the_samples_too_and_done_comes_once(engine: TraceEngine) -> None:
    calls: list[int] = []
    handle = engine.submit(ask(TICKETS[0].text))
    handle.when_done(lambda: calls.append(1))
    assert handle.cancel()
    assert handle.done
    assert calls == [1]
    other, over = engine.submit(ask(TICKETS[1].text)), threading.Event()
    other.when_done(over.set)
    assert over.wait(60)
    assert other.done
    assert read(other.result()).samples is not None
