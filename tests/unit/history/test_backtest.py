"""Past decisions taken again: who goes elsewhere, and what is expected of it."""

import random
from pathlib import Path

import pytest

from tests.unit.history.world import records, table, truth
from wonder.errors import BacktestError, ExportError
from wonder.history.backtest import Costs, backtest, curve
from wonder.history.estimate import error_rate
from wonder.history.picture import load_error_svg
from wonder.history.record import DecisionRecord, read_records, write_records
from wonder.history.report import html_report, text_report
from wonder.routing.table import TransitionTable
from wonder.routing.transition import Transition
from wonder.trace.schema import ThoughtTrace


def test_the_same_table_changes_nothing() -> None:
    found = backtest(records(500), table(0.7))
    assert found.changes == []
    assert found.today == found.proposed
    assert "no decision would go elsewhere" in text_report(found)


def test_load_and_changes_are_counted_and_the_error_is_estimated_where_it_lies() -> None:
    found = backtest(records(10_000), table(0.85, "v2"), costs=Costs(review=2, error=50))
    load, error = truth(10_000, 0.85)
    assert found.proposed.load == pytest.approx(load)
    assert found.proposed.error.low < error < found.proposed.error.high
    (change,) = found.changes
    assert (change.before, change.now) == ("resolve", "human_review")
    assert change.count == found.changed == found.proposed.reviewed - found.today.reviewed
    assert 0 < change.wrong < change.judged
    cost = found.costs.per_thousand(found.proposed)  # type: ignore[union-attr]
    assert cost == pytest.approx(1000 * (load * 2 + (1 - load) * found.proposed.error.value * 50))  # type: ignore[operator]


def test_a_laxer_table_is_judged_by_reviewed_and_audited_answers_in_their_true_proportion() -> None:
    """Unweighted, the few audits would drown in the reviews, whose answers are worse."""
    found = backtest(records(15_000), table(0.5))
    _, error = truth(15_000, 0.5)
    plain = [
        record for record in records(15_000) if record.right is not None and record.trace.overall_confidence >= 0.5
    ]  # type: ignore[operator]
    naive = sum(not record.right for record in plain) / len(plain)
    assert naive - error > 0.05
    assert found.proposed.error.low < error < found.proposed.error.high
    assert found.proposed.error.value == pytest.approx(error, abs=0.02)


def test_the_interval_holds_the_truth_in_about_95_of_100_worlds() -> None:
    chance, hits = random.Random(3), 0
    for _ in range(400):
        sample = [(1.0, chance.random() < 0.3) for _ in range(40)] + [(0.1, chance.random() < 0.08) for _ in range(60)]
        expected = (40 * 0.3 + 600 * 0.08) / 640
        found = error_rate(sample)
        hits += found.low <= expected <= found.high
    assert 0.9 <= hits / 400 <= 0.99


def test_without_audits_the_error_of_the_accepted_is_not_known_and_the_report_says_what_to_do() -> None:
    found = backtest(records(300, audit_rate=0.0), table(0.85, audit_rate=0.0))
    assert found.today.error.value is None
    assert found.today.unseen == found.today.decisions - found.today.reviewed
    told = text_report(found)
    assert "not known" in told
    assert "give the table an audit_rate and come back" in told
    assert "error not known" in load_error_svg(found)


def test_no_wrong_answer_among_few_is_no_promise() -> None:
    found = error_rate([(0.1, False)] * 10)
    assert found.value == 0
    assert found.high > 0.2


def test_what_old_records_lack_goes_to_a_person_and_is_counted() -> None:
    newer = TransitionTable(
        [
            Transition(from_="classify", to="human_review", condition="thought_trace.signals.min_margin < 0.2"),
            Transition(from_="classify", to="resolve", condition="otherwise"),
        ],
        on_unknown="human_review",
    )
    found = backtest(records(200), newer)
    assert found.proposed.load == 1.0
    assert sum(found.unknown.values()) == 200
    assert "200 decisions go to a person because something is not known" in text_report(found)
    assert "min_margin" in next(iter(found.unknown))


def test_a_table_for_other_actions_is_refused_and_no_decisions_are() -> None:
    other = TransitionTable([Transition(from_="draft", to="send", condition="otherwise")], on_unknown="person")
    with pytest.raises(BacktestError, match=r"rows after 'draft', and the records are of 'classify' \(5\)"):
        backtest(records(5), other)
    with pytest.raises(BacktestError, match="look further back"):
        backtest([], table(0.7))


def test_a_threshold_by_risk_without_a_calibration_is_unknown_and_says_so() -> None:
    found = backtest(records(50), table('threshold("classify", risk=0.05)'))
    assert found.proposed.load == 1.0
    assert "no certified threshold" in next(iter(found.unknown))


def test_the_curve_is_what_each_threshold_would_mean() -> None:
    points = [(0.9, 1.0, True), (0.8, 0.5, False), (0.8, 0.5, True), (None, 1.0, False), (0.2, 1.0, False)]
    found = {point.threshold: (point.load, point.error) for point in curve(points)}
    assert found[0.9] == (pytest.approx(0.8), 0.0)
    assert found[0.8] == (pytest.approx(0.4), pytest.approx(2 / 5))
    assert found[0.2] == (pytest.approx(0.2), pytest.approx(3 / 6))


def test_records_survive_the_file_and_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "past.jsonl"
    with path.open("w") as file:
        assert write_records(records(20), file) == 20
    assert list(read_records(path)) == list(records(20))
    path.write_text(path.read_text() + '{"run": "x"}\n')
    with pytest.raises(ExportError, match=r"line 21: after: Field required; the file should be what `wonder export`"):
        list(read_records(path))
    with pytest.raises(ExportError, match="cannot be read"):
        list(read_records(tmp_path / "nothing"))


def test_records_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "newer.jsonl"
    (record,) = records(1)
    path.write_text(record.model_copy(update={"schema_version": 2}).model_dump_json() + "\n")
    with pytest.raises(ExportError, match=r"newer version of Wonder .*upgrade"):
        list(read_records(path))


def test_the_page_has_the_picture_and_escapes_what_it_shows() -> None:
    odd = DecisionRecord(
        run="<script>",
        after="classify",
        targets=["resolve"],
        propensity=1.0,
        trace=ThoughtTrace(action="classify", model="m", overall_confidence=0.75),
        right=True,
    )
    page = html_report(backtest([odd], table(0.85, "<v2>")))
    assert "<svg" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_short_way_decides_as_the_table_does() -> None:
    rows = [
        Transition(from_="classify", to="legal", condition="thought_trace.active_concepts.legal > 0.5"),
        Transition(from_="classify", to="human_review", condition="thought_trace.overall_confidence < 0.8"),
        Transition(from_="classify", to="resolve", condition="otherwise"),
    ]
    plain = TransitionTable(rows, on_unknown="human_review")
    limited = TransitionTable([rows[0].model_copy(update={"max_visits": 99}), *rows[1:]], on_unknown="human_review")
    known = [
        record.model_copy(
            update={"trace": record.trace.model_copy(update={"active_concepts": {"legal": number % 10 / 10}})}
        )
        if number % 3
        else record
        for number, record in enumerate(records(300))
    ]
    one, other = backtest(known, plain), backtest(known, limited)
    assert one.proposed == other.proposed
    assert one.changes == other.changes
    assert one.unknown == other.unknown
    assert len({change.now for change in one.changes}) > 1


def test_a_ladder_is_climbed_as_far_as_the_record_says() -> None:
    ladder = TransitionTable(
        [
            Transition(
                from_="classify",
                to="human_review",
                condition="thought_trace.overall_confidence < 0.7",
                escalate_to=["large"],
            ),
            Transition(from_="classify", to="resolve", condition="otherwise"),
        ],
        on_unknown="human_review",
    )
    (sure, doubtful, again) = (
        record.model_copy(update={"trace": record.trace.model_copy(update={"overall_confidence": value}), "rung": rung})
        for record, value, rung in zip(records(3), (0.9, 0.3, 0.3), (0, 0, 1), strict=True)
    )
    found = backtest([sure, doubtful, again], ladder)
    assert (found.proposed.decisions, found.proposed.retried, found.proposed.reviewed) == (2, 1, 1)
    assert "tried again first" in text_report(found)
