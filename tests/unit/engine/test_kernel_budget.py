"""What reading adds to a decode step is bounded in operations, whatever the depth; counted, not timed."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.unit.engine.conftest import build
from wonder.engine.recorder import ReadPlan
from wonder.engine.sampling import RowDraw
from wonder.engine.slot_recorder import RowReadings
from wonder.engine.slot_runner import SlotRunner
from wonder.trace.layers import quarter
from wonder.trace.sampling import Sampling

LAYERS = 32
ALL = ReadPlan(tuple(range(LAYERS)), 4, (), True, 3)
QUARTER = ReadPlan(tuple(quarter(LAYERS)), 4, (), True, 3)
HEADS = ReadPlan(tuple(range(LAYERS)), 4, (), True, 3, heads=True)


class Counter(TorchDispatchMode):
    """Counts what is dispatched and is no view."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not (func.is_view or "view" in func.__name__):
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def dispatched(runtime: Any, plan: ReadPlan | None, rows: int) -> list[str]:
    """Operations of one decode step of ragged rows."""
    runner = SlotRunner(runtime, rows)
    lengths = [10 + row for row in range(rows)]
    # Outside inference mode composite operations are counted as what they are made of.
    with torch.no_grad():
        runner.cache.reserve(rows, 64, 0, 64 * rows)
        draws = [RowDraw(Sampling()) for _ in range(rows)]
        for row, length in enumerate(lengths):
            runner.prefill(row, [list(range(3, 3 + length))], 0, [None], draws[row : row + 1])
        readings = [None if plan is None else RowReadings(plan) for _ in range(rows)]
        for step in range(2):  # what is kept from step to step is there in the second one
            counter = Counter()
            with counter:
                runner.decode(0, [5] * rows, [length + step for length in lengths], readings, draws)
    return counter.names


@pytest.fixture(scope="module")
def deep(make_engine: Any) -> Any:
    """Engines of the same model, eight times as deep."""
    return {
        layers: make_engine("llama", model=build("llama", num_hidden_layers=layers, eos_token_id=None))._runtime
        for layers in (4, LAYERS)
    }


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize(("plan", "most"), [(ALL, 45), (QUARTER, 37), (HEADS, 53)], ids=["all", "quarter", "heads"])
def test_full_capture_of_32_layers_stays_in_its_budget(deep: Any, plan: ReadPlan, most: int, rows: int) -> None:
    plain = dispatched(deep[LAYERS], None, rows)
    traced = dispatched(deep[LAYERS], plan, rows)
    added = len(traced) - len(plain)
    assert 0 < added <= most, f"{added} operations added: {traced[-added:]}"


def test_no_operation_is_added_per_layer(deep: Any) -> None:
    """Layers are read in stacks of eight; a reduction in every hook would add some twenty operations per layer."""
    extra = {}
    for layers, runtime in deep.items():
        plan = ReadPlan(tuple(range(layers)), 4, (), True, 3)
        extra[layers] = len(dispatched(runtime, plan, 4)) - len(dispatched(runtime, None, 4))
    assert extra[LAYERS] - extra[4] <= 3 * LAYERS / 8


def test_layers_with_other_masks_are_reduced_together(make_engine: Any) -> None:
    """Windowed, chunked and full layers share one reduction; only their masks are stacked."""
    for family in ("gemma3", "llama4"):
        runtime = make_engine(family, model=build(family, eos_token_id=None))._runtime
        plan = ReadPlan((0, 1, 2, 3), 4, (), False, 3)
        added = len(dispatched(runtime, plan, 3)) - len(dispatched(runtime, None, 3))
        assert added <= 40, (family, added)
