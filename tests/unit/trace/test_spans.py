import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wonder.trace.spans import Span, tokens_of, value_spans

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abé_", min_size=1, max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
).filter(lambda value: isinstance(value, dict | list))


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        return {path: value}
    found: dict[str, Any] = {}
    for key, child in pairs:
        found |= leaves(child, f"{path}.{key}" if path else str(key))
    return found


@settings(deadline=None)
@given(
    documents,
    st.sampled_from(["", " ", "```json\n", "Sure: "]),
    st.sampled_from(["", "\n```", " Done.", "\n\n"]),
    st.booleans(),
)
def test_the_spans_are_the_values_of_any_json_document(value: Any, before: str, after: str, ascii_only: bool) -> None:
    text = before + json.dumps(value, ensure_ascii=ascii_only, indent=2 if ascii_only else None) + after
    spans = value_spans(text, "json")
    want = leaves(value)
    assert spans.values.keys() == want.keys()
    for path, span in spans.values.items():
        part = text[span.start : span.stop]
        assert (json.loads(f'"{part}"') if isinstance(want[path], str) else json.loads(part)) == want[path]


@settings(deadline=None)
@given(st.text('{}[]",: a1\\', max_size=60))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    spans = value_spans(text, "json")
    assert (spans.reason is None) == (spans.document is not None)


def test_the_longest_document_is_the_answer() -> None:
    text = 'As in [1], the answer is {"team": "billing"}.'
    assert value_spans(text, "json").values == {"team": Span(35, 42)}


def test_of_a_repeated_key_the_last_one_counts() -> None:
    spans = value_spans('{"a": {"b": 1}, "a": 2}', "json")
    assert list(spans.values) == ["a"]


def test_a_bare_scalar_is_a_json_answer() -> None:
    assert value_spans(' "billing"\n', "json").values == {"": Span(2, 9)}


@pytest.mark.parametrize("text", ["", "no idea", '{"team": ', '{"team" "x"}', "[" * 10_000])
def test_text_without_a_document_has_no_values_and_says_why(text: str) -> None:
    spans = value_spans(text, "json")
    assert spans.values == {}
    assert spans.reason == "no JSON document was found in the answer"


def test_plain_text_is_one_value_without_the_spaces_around_it() -> None:
    assert value_spans("  two words \n", "text").values == {"": Span(2, 11)}
    assert value_spans(" \n", "text").reason == "the answer is empty"


def test_a_token_that_merges_a_quote_with_the_value_belongs_to_the_value() -> None:
    text, pieces = '{"team": "billing"}', ['{"', "team", '":', ' "b', "illing", '"}']
    spans, at = [], 0
    for piece in pieces:
        spans.append((at, at + len(piece)))
        at += len(piece)
    assert tokens_of(value_spans(text, "json").values["team"], spans) == (3, 5)


def test_an_empty_string_is_attributed_to_its_closing_quote_and_special_tokens_to_nothing() -> None:
    assert tokens_of(Span(2, 2), [(0, 2), (2, 2), (2, 4)]) == (2, 3)
    assert tokens_of(Span(0, 2), [(0, 0), (0, 2), (2, 2)]) == (1, 2)
    assert tokens_of(Span(5, 6), [(0, 2)]) is None


def test_brackets_inside_a_string_are_not_the_document() -> None:
    found = value_spans(' "see {} and [1]" ', "json")
    assert found.document == Span(1, 17)
    assert found.values == {"": Span(2, 16)}
