"""The schema check lies between pydantic's two verdicts: the strict one and the lax one."""

import json
from datetime import date, datetime
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, Union
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wonder.review.json_schema import problems


class Team(Enum):
    BILLING = "billing"
    LEGAL = "legal"


class Level(IntEnum):  # pydantic takes `true` for 1 here, so it is only tested inside `Closed`, with numbers
    LOW = 1
    HIGH = 3


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=1, lt=10)


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str = Field(min_length=1, max_length=5, pattern="^[a-z]+$")


class Tree(BaseModel):
    value: float | None = Field(default=None, gt=-1, le=1)
    children: list["Tree"] = Field(default=[], max_length=2)


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    team: Team
    level: Level = Level.LOW
    pet: Annotated[Union[Cat, Dog], Field(discriminator="kind")] | None = None  # noqa: UP007 - as users write it
    tags: dict[str, bool] = {}
    pair: tuple[int, str] | None = None
    tree: Tree | None = None
    step: int = Field(default=0, multiple_of=5)


TYPES: list[Any] = [
    str,
    int,
    float,
    bool,
    Team,
    Literal["a", 1, True, None],
    list[int],
    dict[str, Team],
    tuple[int, str],
    int | str | None,
    Annotated[str, Field(min_length=2, max_length=3)],
    Annotated[int, Field(ge=0, lt=10, multiple_of=2)],
    Cat | Dog,
    Tree,
    Closed,
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.floats(-2, 12, allow_nan=False),
    st.sampled_from(["a", "abc", "cat", "dog", "billing", "legal", "rex", "", "x" * 9]),
)
names = st.sampled_from(
    ["kind", "lives", "name", "value", "children", "team", "level", "pet", "tags", "pair", "tree", "step", "other"]
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=8
)
likely = st.one_of(
    anything,
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["cat", "dog", "cow"])}, optional={"lives": scalars, "name": scalars}
    ),
    st.fixed_dictionaries(
        {"team": st.sampled_from(["billing", "legal", "x"])},
        optional={
            "level": st.integers(0, 3),
            "pet": st.fixed_dictionaries(
                {"kind": st.sampled_from(["cat", "dog"])}, optional={"lives": st.integers(0, 11)}
            ),
            "tags": st.dictionaries(names, st.booleans() | scalars, max_size=2),
            "pair": st.lists(scalars, min_size=1, max_size=3),
            "step": st.integers(0, 11),
            "other": scalars,
        },
    ),
)


def accepts(adapter: TypeAdapter[Any], value: Any, *, strict: bool) -> bool:
    try:
        adapter.validate_json(json.dumps(value), strict=strict)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("kind", TYPES, ids=str)
@settings(max_examples=60, deadline=None)
@given(value=likely)
def test_the_verdict_lies_between_pydantic_s_strict_and_lax_one(kind: Any, value: Any) -> None:
    adapter = TypeAdapter(kind)
    fits = not problems(value, adapter.json_schema())
    if fits:
        assert accepts(adapter, value, strict=False)
    if accepts(adapter, value, strict=True):
        assert fits, problems(value, adapter.json_schema())


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (datetime, "2026-11-20T10:00:00Z", "soon"),
        (date, "2026-11-20", "2026-13-01"),
        (UUID, "12345678-1234-5678-1234-567812345678", "12"),
        (set[int], [1, 2], [1, 1]),
    ],
)
def test_formats_and_sets_are_checked(kind: Any, good: Any, bad: Any) -> None:
    schema = TypeAdapter(kind).json_schema()
    assert problems(good, schema) == []
    assert len(problems(bad, schema)) == 1


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"team": "marketing"}, 'team must be one of "billing", "legal", not "marketing"'),
        ({}, "team is missing"),
        ({"team": "legal", "colour": 1}, "colour is not a field; there are team, level, pet, tags, pair, tree, step"),
        ({"team": "legal", "tags": {"a": "yes"}}, 'tags.a must be a boolean, not "yes"'),
        ({"team": "legal", "step": 3}, "step must be a multiple of 5, not 3"),
        (
            {"team": "legal", "tree": {"children": [{"value": 2}]}},
            "tree fits none of 2 forms: tree.children[0].value fits none of 2 forms: "
            "tree.children[0].value must be at most 1, not 2",
        ),
        ("legal", 'the answer must be an object, not "legal"'),
    ],
)
def test_a_problem_names_its_place_what_was_found_and_what_was_wanted(value: Any, complaint: str) -> None:
    assert problems(value, TypeAdapter(Closed).json_schema()) == [complaint]


def test_every_problem_is_told_at_once() -> None:
    assert len(problems({"team": "x", "step": 1, "other": 1}, TypeAdapter(Closed).json_schema())) == 3


def test_an_empty_schema_allows_everything_and_false_nothing() -> None:
    assert problems({"a": [1]}, {}) == []
    assert problems({"a": [1]}, False) == ["the answer is not allowed"]


def test_unknown_keywords_and_references_are_remarks() -> None:
    assert problems(1, {"title": "A", "x-own": 3, "$ref": "https://elsewhere"}) == []
