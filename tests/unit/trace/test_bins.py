"""Binned traces: decodable to a stated accuracy, small, and with the same confidence as the whole trace."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.trace.test_size import trace
from wonder.trace.bins import ALPHABET, BinnedTable, TimeBins, lowest, means
from wonder.trace.detail import BINNED, binned, time_bins
from wonder.trace.schema import ThoughtTrace
from wonder.trace.size import encoded_bytes, fit, rounded, strip_to_scalars

numbers = st.none() | st.floats(-1e30, 1e30, allow_nan=False) | st.floats(0, 1)


def of(whole: ThoughtTrace, bins: int = 16, layers: int = 8) -> ThoughtTrace:
    series = {"layer_norms": {str(layer): [float(layer + at) for at in range(bins)] for layer in range(layers)}}
    return whole.model_copy(update={"time_bins": time_bins(whole, bins, series)})


@given(st.lists(st.lists(numbers, min_size=5, max_size=5), min_size=1, max_size=4))
@example([[1e9, 1e9 + 1, None, 1e9, 1e9]])
@example([[-0.1, -0.10001, -0.2, 0.0, 1e-40]])
@example([[None] * 5])
def test_a_table_comes_back_to_the_accuracy_it_states(rows: list[list[float | None]]) -> None:
    table = BinnedTable.of({f"row {at}": row for at, row in enumerate(rows)})
    assert BinnedTable.model_validate_json(table.model_dump_json()) == table
    for (name, found), row in zip(table.numbers().items(), rows, strict=True):
        known = [x for x in row if x is not None]
        span, size = (max(known) - min(known), max(map(abs, known))) if known else (0.0, 0.0)
        assert name.startswith("row ")
        for before, after in zip(row, found, strict=True):
            assert (before is None) == (after is None)
            if before is not None and after is not None:
                assert abs(before - after) <= span / 166 + size * 1e-4 + 1e-38


def test_a_table_of_layers_names_no_rows_and_is_one_character_a_number() -> None:
    table = BinnedTable.of({str(layer): [layer / 7, None, 1.0] for layer in range(12)})
    assert table.rows == []
    assert len(table.data) == 12 * (5 + 3)
    assert list(table.numbers()) == [str(layer) for layer in range(12)]
    assert set(table.data) <= set(ALPHABET)


@pytest.mark.parametrize("data", ["0", "00000 ", "\u00e900000"])
def test_a_table_that_was_cut_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match="the table was cut"):
        BinnedTable(columns=1, data=data).numbers()


def test_bins_cover_every_token_once() -> None:
    for tokens in (1, 15, 16, 17, 256, 1000):
        bins = time_bins(trace(tokens), 16, {})
        assert [at for index in range(bins.bins) for at in bins.span(index)] == list(range(tokens))
        assert bins.bins == min(16, tokens)


def test_a_bin_is_the_mean_of_its_known_numbers() -> None:
    assert means([1.0, 3.0, None, 5.0, None, None], 3) == [2.0, 5.0, None]
    assert lowest([1.0, 3.0, None, 5.0, None, None], 3) == [1.0, 5.0, None]


def test_a_binned_trace_says_the_same_of_the_whole_answer_in_less() -> None:
    whole = of(trace(256, layers=32, experts=16), layers=32)
    small = binned(rounded(whole))
    for name in ("overall_confidence", "field_confidences", "layer_norms", "attention_entropy", "compressed_state"):
        assert getattr(small, name) == getattr(rounded(whole), name)
    assert all(not getattr(small, name) for name in BINNED)
    assert "time_bins" in small.missing["detail"]
    assert encoded_bytes(small) < 8192 < encoded_bytes(rounded(whole))
    bins = small.time_bins
    assert bins is not None
    confidence = [x for x in whole.token_confidences if x is not None]
    assert bins.table("tokens")["lowest_confidence"] == pytest.approx(
        [min(confidence[span.start : span.stop]) for span in map(bins.span, range(16))], abs=1 / 150
    )
    assert bins.table("expert_distribution")["3"] == pytest.approx(whole.expert_distribution["3"], abs=1 / 150)
    assert bins.table("nothing") == {}
    doubts = [doubt.confidence for doubt in small.least_certain]
    assert doubts == sorted(doubts)  # type: ignore[type-var]
    assert doubts[0] == min(rounded(whole).token_confidences)  # type: ignore[type-var]
    assert all(len(doubt.alternatives) == 3 for doubt in small.least_certain)


def test_a_binned_trace_leaves_out_what_is_empty_and_reads_back_the_same() -> None:
    small = binned(rounded(of(trace(40)))).model_copy(update={"action": ""})
    text = small.model_dump_json()
    assert '"token_confidences":' not in text
    assert ThoughtTrace.model_validate_json(text) == small
    assert '"token_confidences":[]' in trace(0).model_dump_json()


def test_a_trace_without_probabilities_has_bins_of_what_there_is() -> None:
    bare = ThoughtTrace(action="a", model="m", tokens=["x", "y"])
    bins = time_bins(bare, 16, {"layer_norms": {"0": [None, math.pi]}})
    assert list(bins.tables) == ["layer_norms"]
    assert binned(bare.model_copy(update={"time_bins": bins})).least_certain[0].confidence is None


def test_bins_go_when_even_they_are_too_long() -> None:
    layers = {"layer_norms": {str(layer): [1.0] * 64 for layer in range(2000)}}
    whole = trace(100).model_copy(update={"time_bins": time_bins(trace(100), 64, layers)})
    small, moved = fit(binned(whole), 8192)
    assert encoded_bytes(small) <= 8192
    assert small.time_bins is None
    assert TimeBins.model_validate(moved["time_bins"][0]).table("layer_norms")["1999"] == pytest.approx([1.0] * 64)
    assert strip_to_scalars(whole, "gone").time_bins is None
