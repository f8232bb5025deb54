import pytest

from wonder.errors import SettingNotSupported
from workers.gpu.__main__ import equivalences


def test_an_equivalence_is_found_by_module_and_function() -> None:
    found = equivalences(["same=wonder.trace.samples:same_values"])
    assert found["same"]("a", "a")
    assert not found["same"]("a", "b")


@pytest.mark.parametrize("item", ["same", "same=nowhere.at.all:f", "same=wonder.trace.samples:nothing", "same=:f"])
def test_one_that_cannot_be_found_is_refused_with_the_form_to_write(item: str) -> None:
    with pytest.raises(SettingNotSupported, match="write NAME=MODULE:FUNCTION"):
        equivalences([item])
