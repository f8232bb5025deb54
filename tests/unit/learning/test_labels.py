import json
from pathlib import Path

import pytest

from tests.unit.learning.world import answers
from wonder.calibration.outcomes import LabeledOutcome, read_outcomes, write_outcomes
from wonder.errors import (
    CalibrationError,
    CalibrationMismatch,
    LabelsContradict,
    OneClassOnly,
    SignalMissing,
    TooFewLabels,
)
from wonder.learning.labels import cannot_certify, effective, prepare, thin, weights


def test_too_few_labels_say_how_many_are_missing() -> None:
    with pytest.raises(
        TooFewLabels, match=r"30 answers, 30 of them judged, and a calibration takes at least 50: judge 20 more"
    ):
        prepare(answers(30), action="classify")
    with pytest.raises(TooFewLabels, match="no answers at all"):
        prepare(answers(100), action="draft")
    with pytest.raises(TooFewLabels, match="judge 50 more"):
        prepare([outcome.model_copy(update={"right": None}) for outcome in answers(100)], action="classify")


@pytest.mark.parametrize(("right", "said"), [(True, "are right"), (False, "are wrong")])
def test_one_class_only_is_refused(right: bool, said: str) -> None:
    with pytest.raises(OneClassOnly, match=said):
        prepare([outcome.model_copy(update={"right": right}) for outcome in answers(100)], action="classify")


def test_two_wrong_answers_are_too_few_to_learn_from() -> None:
    mostly = [outcome.model_copy(update={"right": i > 1}) for i, outcome in enumerate(answers(100))]
    with pytest.raises(TooFewLabels, match="only 2 of 100 judged answers of 'classify' are wrong"):
        prepare(mostly, action="classify")


def test_the_same_answer_called_right_and_wrong_is_refused_or_left_out() -> None:
    made = answers(100)
    clash = made[3].model_copy(update={"right": not made[3].right, "id": "again", "input": "x"})
    made[3] = made[3].model_copy(update={"input": "x"})
    with pytest.raises(LabelsContradict, match=r"1 answers are called right by one .* \(x\)"):
        prepare([*made, clash], action="classify")
    kept = prepare([*made, clash], action="classify", drop_contradictions=True).judged
    assert len(kept) == 99
    assert not {made[3].id, "again"} & {outcome.id for outcome in kept}


def test_an_answer_judged_twice_counts_once() -> None:
    made = answers(100)
    assert len(prepare([*made, made[5], made[6]], action="classify").judged) == 100


def test_labels_of_several_models_are_refused() -> None:
    mixed = answers(60, model_fingerprint="a" * 64) + answers(60, seed=1, model_fingerprint="b" * 64)
    with pytest.raises(CalibrationMismatch, match=r"2 models: aaaaaaaaaaaa \(60\), bbbbbbbbbbbb \(60\)"):
        prepare(mixed, action="classify")
    with pytest.raises(CalibrationMismatch, match="2 confidence methods"):
        prepare(answers(60) + answers(60, seed=1, signal="hidden_norm"), action="classify")


def test_a_missing_signal_is_named_with_those_there_are() -> None:
    with pytest.raises(
        SignalMissing, match=r"100 of 100 outcomes have no 'mean_margin' .*hidden_norm, value_probability"
    ):
        prepare([outcome.model_copy(update={"signal": "mean_margin"}) for outcome in answers(100)], action="classify")
    beyond = answers(100, signals={"value_probability": -2.5})
    with pytest.raises(SignalMissing, match=r"outside 0\.\.1 in 100 outcomes"):
        prepare(beyond, action="classify")


def test_weights_bring_back_the_traffic() -> None:
    everything = answers(20_000, seed=2)
    accuracy = sum(bool(outcome.right) for outcome in everything) / len(everything)
    judged = answers(20_000, seed=2, review_below=0.7, audit=0.05)
    of = weights(judged)
    plain = sum(bool(outcome.right) for outcome in judged) / len(judged)
    weighted = sum(w for w, outcome in zip(of, judged, strict=True) if outcome.right) / sum(of)
    assert abs(weighted - accuracy) < 0.02 < abs(plain - accuracy)
    assert max(of) == 20
    assert effective(of) < len(judged) / 2


def test_thinned_answers_are_a_plain_sample_of_the_traffic() -> None:
    judged = answers(40_000, seed=2, review_below=0.7, audit=0.05)
    kept = thin(judged, key="k")
    everything = answers(40_000, seed=2)
    assert len(kept) == pytest.approx(0.05 * 40_000, rel=0.1)
    for at in (0.5, 0.7, 0.9, 0.99):
        share = sum(outcome.signals["value_probability"] < at for outcome in kept) / len(kept)
        want = sum(outcome.signals["value_probability"] < at for outcome in everything) / len(everything)
        assert share == pytest.approx(want, abs=0.03)
    assert thin(judged, key="k") == kept
    assert thin(judged[:500], key="k") == [outcome for outcome in kept if outcome in judged[:500]]
    assert thin(judged, key="other") != kept


def test_without_audits_nothing_is_certified() -> None:
    assert "audit_rate" in cannot_certify(answers(500, review_below=0.7))
    assert cannot_certify(answers(500, review_below=0.7, audit=0.1)) == ""
    assert cannot_certify(answers(500)) == ""


def test_outcomes_are_read_back_from_json_lines(tmp_path: Path) -> None:
    made = answers(20, review_below=0.7, audit=0.5, unjudged=True)
    write_outcomes(tmp_path / "out.jsonl", made)
    assert read_outcomes(tmp_path / "out.jsonl") == made


def test_a_line_may_be_as_short_as_a_confidence_and_a_verdict(tmp_path: Path) -> None:
    (tmp_path / "short.jsonl").write_text(
        '{"confidence": 0.93, "right": true}\n\n{"confidence": 0.2, "right": false}\n'
    )
    found = read_outcomes(tmp_path / "short.jsonl", action="classify", model="m")
    assert [(item.id, item.signals, item.right) for item in found] == [
        ("line 1", {"value_probability": 0.93}, True),
        ("line 3", {"value_probability": 0.2}, False),
    ]


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", "null", '{"right": "perhaps"}', '{"confidence": NaN, "right": true}', json.dumps({"propensity": 0})],
)
def test_a_line_that_is_no_outcome_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"confidence": 0.5, "right": true}\n' + line + "\n")
    with pytest.raises(CalibrationError, match=r"bad\.jsonl, line 2"):
        read_outcomes(tmp_path / "bad.jsonl", action="classify")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_outcomes(tmp_path / "none.jsonl")


def test_what_belongs_together_shares_a_block() -> None:
    assert LabeledOutcome(id="1", action="a", group="customer").block == "customer"
    assert LabeledOutcome(id="1", action="a").block == "1"
