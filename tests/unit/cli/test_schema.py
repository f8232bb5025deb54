"""The example of a workflow's input is one that the workflow takes."""

from typing import Literal

from pydantic import BaseModel, Field, TypeAdapter

from wonder.cli.schema import example, input_type
from wonder.graph.plan import plan
from wonder.graph.spec import GraphRun
from wonder.graph.workflow import Graph


class Inner(BaseModel):
    """Nested."""

    kind: Literal["a", "b"]
    share: float


class Outer(BaseModel):
    """With all that a schema may hold."""

    name: str
    count: int
    inner: Inner
    several: list[Inner] = Field(min_length=1)
    some: list[str]
    either: int | str
    free: str = "left out"


def test_an_example_is_valid() -> None:
    found = example(TypeAdapter(Outer).json_schema())
    assert "free" not in found
    assert len(Outer.model_validate(found).several) == 1


def test_the_table_that_runs_as_data_can_be_asked_for() -> None:
    assert input_type({"wonder.Graph": Graph}, "wonder.Graph") is GraphRun
    given = GraphRun.model_validate(example(TypeAdapter(GraphRun).json_schema()))
    plan(given.graph).check_input(given.input)
