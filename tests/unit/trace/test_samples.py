import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wonder.trace.samples import canonical_answer, same_values, summarize


def test_case_spacing_and_the_order_of_properties_do_not_matter() -> None:
    one = canonical_answer('{"team": "Billing", "note": "a  b"}', "json")
    other = canonical_answer('Sure: {"note":"A b","team":"billing"}', "json")
    assert one == other
    assert canonical_answer("  Paris\n", "text") == canonical_answer("paris", "text")


def test_only_the_fields_that_count_are_compared() -> None:
    one, other = '{"team": "a", "note": "x"}', '{"team": "a", "note": "y"}'
    assert canonical_answer(one, "json") != canonical_answer(other, "json")
    assert canonical_answer(one, "json", ["team"]) == canonical_answer(other, "json", ["team"])


def test_an_answer_that_does_not_parse_is_its_own_text() -> None:
    assert canonical_answer("I do  not know", "json") == "i do not know"


def test_the_entropy_is_that_of_the_clusters() -> None:
    found = summarize("a", ["a", "a", "b", "c"], same_values, name="values")
    assert found.agreement == 0.5
    assert found.distinct == 3
    assert found.semantic_entropy_nats == pytest.approx(0.5 * math.log(2) + 2 * 0.25 * math.log(4))
    assert [(cluster.answer, cluster.count) for cluster in found.clusters] == [("a", 2), ("b", 1), ("c", 1)]


def test_an_equivalence_must_hold_both_ways() -> None:
    def entails(one: str, other: str) -> bool:
        return other in one  # the longer says what the shorter does

    found = summarize("a dog", ["a dog", "a black dog", "dog"], entails, name="entails")
    assert found.distinct == 3
    assert found.agreement == pytest.approx(1 / 3)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), st.sampled_from("abcd"))
def test_the_numbers_stay_in_their_ranges(samples: list[str], given_answer: str) -> None:
    found = summarize(given_answer, samples, same_values, name="values")
    assert 0 <= found.semantic_entropy_nats <= math.log(len(samples)) + 1e-9
    assert found.agreement == samples.count(given_answer) / len(samples)
    assert sum(cluster.count for cluster in found.clusters) == len(samples)
