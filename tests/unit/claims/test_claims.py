"""A claim is what its evidence shows, and decides only where it has been validated."""

import random
from typing import Any

import pytest

from wonder.actions.definition import ActionDef
from wonder.claims.claim import Claim, evaluate_claims
from wonder.claims.known import active_before, alternatives
from wonder.claims.validation import ClaimValidation, validate
from wonder.errors import ConditionError, DefinitionError
from wonder.routing.context import Context
from wonder.routing.table import TransitionTable
from wonder.routing.transition import Transition
from wonder.trace.capture import ThoughtCapture
from wonder.trace.schema import FieldConfidence, ThoughtTrace, TokenAlternative

MARGIN = "thought_trace.signals.min_relative_margin"


def trace(margin: float | None = 0.1, **more: Any) -> ThoughtTrace:
    signals = {} if margin is None else {"min_relative_margin": margin}
    return ThoughtTrace(
        **{"action": "answer", "model": "tiny", "model_fingerprint": "f1", "signals": signals, "tokens": ["x"], **more}
    )


def examples(count: int = 80, seed: int = 1) -> list[tuple[ThoughtTrace, bool]]:
    chance = random.Random(seed)
    return [(trace(chance.uniform(0, 0.35)), True) for _ in range(count)] + [
        (trace(chance.uniform(0.5, 1)), False) for _ in range(count)
    ]


def validated(claim: Claim, /, **update: Any) -> Claim:
    record = validate(claim, examples(), "constructed")
    return claim.model_copy(update={"validations": [record.model_copy(update=update)]})


@pytest.mark.parametrize(
    ("margin", "verdict"), [(0.1, "supported"), (0.99, "refuted"), (0.6, "undetermined"), (None, "undetermined")]
)
def test_the_evidence_decides_what_is_shown(margin: float | None, verdict: str) -> None:
    assert validated(alternatives()).evaluate(trace(margin)).verdict == verdict


def test_a_claim_that_was_never_validated_shows_its_evidence_and_has_no_verdict() -> None:
    found = alternatives().evaluate(trace(0.1))
    assert (found.verdict, found.shown) == (None, "supported")
    assert found.reason == "claim 'alternatives' was never validated on tiny: run `wonder claims validate`"
    assert found.evidence == {MARGIN: 0.1}


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        ({"model_fingerprint": "f2"}, "never validated on tiny"),
        ({"claim": "0" * 16}, "its evidence has changed since"),
        ({"positives": 12}, "too few examples: 12 where it holds of at least 60"),
        ({"false_support": 0.2}, "was supported where it is false in 20.0% of the cases, more than 5.0%"),
        ({"false_refutation": 0.2}, "was refuted where it holds in 20.0% of the cases"),
    ],
)
def test_a_validation_counts_only_for_its_model_its_evidence_and_if_it_is_good_enough(
    update: dict[str, Any], reason: str
) -> None:
    found = validated(alternatives(), **update).evaluate(trace(0.1))
    assert found.verdict is None
    assert reason in found.reason


def test_a_transition_may_rest_on_a_validated_claim_and_on_no_other() -> None:
    def target(claim: Claim) -> str:
        action = ActionDef(name="answer", prompt="x", claims=[claim])
        table = TransitionTable(
            [
                Transition(
                    from_=action, to="resolve", condition='thought_trace.claims.alternatives.verdict == "refuted"'
                ),
                Transition(from_=action, to="compare", condition="otherwise"),
            ]
        )
        ctx = Context(thought_traces=[evaluate_claims([claim], trace(0.99))])
        decision = table.decide(ctx, after="answer")
        if decision.reason == "unknown":
            assert "never validated" in next(iter(decision.rows[0].unknown.values()))
        return decision.to

    assert target(validated(alternatives())) == "resolve"
    assert target(alternatives()) == "human_review"


def test_a_table_that_names_a_claim_the_action_does_not_make_is_refused() -> None:
    action = ActionDef(name="answer", prompt="x", claims=[alternatives()])
    with pytest.raises(ConditionError, match="makes no claim 'alternative': did you mean 'alternatives'"):
        TransitionTable(
            [
                Transition(from_=action, to="a", condition='thought_trace.claims.alternative.verdict == "refuted"'),
                Transition(from_=action, to="b", condition="otherwise"),
            ]
        )


def test_the_entropy_of_attention_alone_supports_nothing() -> None:
    with pytest.raises(DefinitionError, match="attention alone supports nothing"):
        Claim(
            name="wide", text="it looked around", supported_when="thought_trace.attention_entropy_normalized[3] > 0.9"
        )
    with pytest.raises(DefinitionError, match="attention alone supports nothing"):
        Claim(name="wide", text="it looked around", supported_when="thought_trace.signals.attention_narrowness < 0.2")
    both = f"thought_trace.attention_entropy_normalized[3] > 0.9 and {MARGIN} < 0.4"
    assert Claim(name="wide", text="it looked around", supported_when=both)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"supported_when": "thought_trace.signals.min_margn < 0.4"}, "did you mean 'min_margin'"),
        ({"supported_when": "state.x > 1"}, "may read thought_trace only"),
        ({"supported_when": "thought_trace.overall_confidence <"}, "claim 'c', supported_when"),
        ({"supported_when": f"{MARGIN} < 0.4", "refuted_when": "visits > 2"}, "may read thought_trace only"),
    ],
)
def test_evidence_that_cannot_be_had_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Claim(name="c", text="t", **settings)  # type: ignore[arg-type]


def test_an_action_must_read_what_its_claims_need() -> None:
    claim = active_before("legal_risk")
    with pytest.raises(ConditionError, match=r"claim 'legal_risk_before'.*run_concept_probes"):
        ActionDef(name="answer", prompt="x", claims=[claim])
    capture = ThoughtCapture(run_concept_probes=["legal_risk"])
    assert ActionDef(name="answer", prompt="x", claims=[claim], thought_capture=capture).claims == (claim,)


def test_a_concept_read_from_the_answer_says_nothing_about_before_it() -> None:
    claim = active_before("legal_risk")
    before = trace(active_concepts={"legal_risk": 0.9}, concept_sites={"legal_risk": "last_prompt"})
    during = trace(active_concepts={"legal_risk": 0.9}, concept_sites={"legal_risk": "mean_generated"})
    assert claim.shown(before) == "supported"
    assert claim.shown(during) == "undetermined"


def test_the_notes_say_where_the_alternatives_were() -> None:
    both = [TokenAlternative(token=" Paris", probability=0.48), TokenAlternative(token=" Lyon", probability=0.41)]
    found = alternatives().evaluate(
        trace(
            0.07,
            token_margins=[0.9, 0.07],
            top_alternatives=[[], both],
            field_confidences={"": FieldConfidence(start=1, stop=2, confidence=0.48)},
        )
    )
    assert found.notes == ["token 1: ' Paris' 0.48 / ' Lyon' 0.41"]


def test_a_validation_holds_the_rates_and_the_auroc_with_its_interval() -> None:
    pairs = [*examples(), (trace(0.6), True), (trace(0.2), False)]
    found = validate(alternatives(), pairs, "constructed")
    assert (found.positives, found.negatives) == (81, 81)
    assert found.support == pytest.approx(80 / 81)
    assert found.false_support == pytest.approx(1 / 81)
    wins = sum(
        (one.signals["min_relative_margin"] < other.signals["min_relative_margin"])
        for one, holds in pairs
        for other, is_true in pairs
        if holds and not is_true
    )
    assert found.auroc == pytest.approx(wins / 81**2)
    assert found.auroc_low is not None
    assert found.auroc_low <= found.auroc <= found.auroc_high  # type: ignore[operator]


def test_examples_of_one_kind_or_of_two_models_are_refused() -> None:
    with pytest.raises(DefinitionError, match="both kinds are needed"):
        validate(alternatives(), [(trace(0.1), True)] * 5, "d")
    with pytest.raises(DefinitionError, match="several models"):
        validate(alternatives(), [(trace(0.1), True), (trace(0.9, model_fingerprint="f2"), False)], "d")


def test_a_validation_survives_the_wire_and_keeps_its_id() -> None:
    record = validate(alternatives(), examples(), "constructed")
    assert ClaimValidation.model_validate_json(record.model_dump_json()).id == record.id
