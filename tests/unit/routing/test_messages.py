"""What passes between agents, and how a receiver routes on it."""

import pytest

from wonder.errors import MessageTooLarge, NoTrace
from wonder.routing.context import MESSAGE_LIMIT_BYTES, Context
from wonder.routing.table import TransitionTable
from wonder.routing.transition import Transition
from wonder.trace.schema import TRACE_LIMIT_BYTES, AgentMessage, ClaimResult, ThoughtTrace

TRUST = TransitionTable(
    [
        Transition(from_="draft", to="send", condition="thought_trace.overall_confidence > 0.9 and output.ok == true"),
        Transition(from_="draft", to="check", condition="otherwise"),
    ],
    on_unknown="person",
)


def sent(confidence: float | None, answer: object = None) -> AgentMessage:
    trace = ThoughtTrace(action="write", model="m", overall_confidence=confidence)
    return Context(thought_traces=[trace], outputs={"write": answer or {"ok": True}}).message("write")


def decided(message: AgentMessage) -> str:
    ctx = Context()
    ctx.receive(AgentMessage.model_validate_json(message.model_dump_json()), sender="draft")
    return TRUST.decide(ctx, after="draft").to


def test_a_receiver_routes_on_the_senders_trace_and_answer() -> None:
    assert decided(sent(0.95)) == "send"
    assert decided(sent(0.95, {"ok": False})) == "check"
    assert decided(sent(0.5)) == "check"


def test_a_message_whose_confidence_is_unknown_or_that_has_no_trace_is_not_trusted() -> None:
    assert decided(sent(None)) == "person"
    assert decided(AgentMessage(text='{"ok": true}')) == "person"


def test_words_stay_words_and_json_becomes_its_values() -> None:
    ctx = Context()
    ctx.receive(AgentMessage(text="Paris, I think"), sender="a")
    ctx.receive(AgentMessage(text='{"team": "x"}'), sender="b")
    assert ctx.outputs == {"a": "Paris, I think", "b": {"team": "x"}}
    assert [trace.action for trace in ctx.thought_traces] == ["a", "b"]


def test_an_action_that_has_not_run_has_nothing_to_say() -> None:
    with pytest.raises(NoTrace, match=r"no trace of action 'write' to send \(ran so far: none\)"):
        Context().message("write")


def test_a_text_too_long_is_refused_and_a_trace_too_long_is_cut() -> None:
    ctx = Context(thought_traces=[ThoughtTrace(action="a", model="m")])
    with pytest.raises(MessageTooLarge, match="send its reference"):
        ctx.message("a", "ä" * (MESSAGE_LIMIT_BYTES // 2 + 1))
    claims = {
        f"c{i}": ClaimResult(text="t" * 900, verdict=None, shown="undetermined", reason="r", claim="d")
        for i in range(60)
    }
    big = Context(thought_traces=[ThoughtTrace(action="a", model="m", overall_confidence=0.5, claims=claims)])
    message = big.message("a", "short")
    assert message.thought_trace is not None
    assert len(message.thought_trace.model_dump_json()) <= TRACE_LIMIT_BYTES
    assert message.thought_trace.overall_confidence == 0.5
