"""Names, types and settings that two processes must agree on."""

import inspect
import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from lens_training.evaluate.record import Evaluation
from lens_training.job.orders import JobEnd, JobOrder, WatchOrder
from wonder.actions import contracts
from wonder.actions.contracts import ThinkAnswer, ThinkRequest
from wonder.graph.spec import GraphResult, GraphRun
from wonder.plugin import WonderPlugin
from wonder.review.types import ReviewRequest
from wonder.serving.activity import Thinking
from wonder.trace.schema import AgentMessage
from wonder.training.types import ExtendInput, LensProgress, LensResult, LensRun, SweepResult, SweepRun

WIRE: list[type[BaseModel]] = [
    *(ThinkRequest, ThinkAnswer, AgentMessage, ReviewRequest, GraphRun, GraphResult),
    *(LensRun, LensProgress, LensResult, ExtendInput, SweepRun, SweepResult, JobOrder, WatchOrder, JobEnd),
    Evaluation,
]
SCHEMAS = Path(__file__).parent / "schemas"


def test_the_gpu_worker_implements_what_workflows_call() -> None:
    promised, kept = contracts.think, Thinking.think
    assert (
        getattr(promised, "__temporal_activity_definition").name == getattr(kept, "__temporal_activity_definition").name
    )
    promised_types = inspect.get_annotations(promised, eval_str=True)
    kept_types = inspect.get_annotations(kept, eval_str=True)
    assert promised_types == kept_types


@pytest.mark.parametrize(
    "model",
    WIRE,
    ids=lambda model: model.__name__,
)
def test_wire_models_only_ever_gain_fields(model: type[BaseModel]) -> None:
    """The snapshot holds every field ever released; `python -m tests.architecture.test_contracts` renews it."""
    released = json.loads((SCHEMAS / f"{model.__name__}.json").read_text())
    missing = _fields(released) - _fields(model.model_json_schema())
    assert not missing, (
        f"{model.__name__} lost or changed {sorted(missing)}: histories that hold them must still replay"
    )


def test_a_plugin_registers_nothing_without_a_role() -> None:
    plugin = WonderPlugin()
    assert plugin._workflows(None) == []
    assert plugin._activities(None) == []


def activity_name(function: object) -> str:
    """The name an activity goes by."""
    return str(vars(function)["__temporal_activity_definition"].name)


def _fields(schema: dict[str, object]) -> set[tuple[str, str, str]]:
    """(model, field, type) of a JSON schema and its definitions."""
    parts = {str(schema.get("title")): schema, **schema.get("$defs", {})}  # type: ignore[dict-item]
    return {
        (name, field, json.dumps({key: value.get(key) for key in ("type", "$ref")}, sort_keys=True))
        for name, part in parts.items()
        for field, value in part.get("properties", {}).items()  # type: ignore[attr-defined]
    }


if __name__ == "__main__":
    SCHEMAS.mkdir(exist_ok=True)
    for found in WIRE:
        text = json.dumps(found.model_json_schema(), indent=1, sort_keys=True)
        (SCHEMAS / f"{found.__name__}.json").write_text(text + "\n")
