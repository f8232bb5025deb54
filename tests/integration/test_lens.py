"""A lens trained here, exported, served by a real GPU worker, and read in a trace and on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError

from lens_training.support_desk.lens import Recipe, make
from tests.integration.shell import wonder
from tests.integration.test_workers import worker
from tests.integration.workflows import Ask, AskWorkflow
from tests.unit.calibration.bundles import NOW
from wonder.engine import TraceEngine
from wonder.errors import LensNotPromoted
from wonder.lens.gate import Bars
from wonder.lens.manifest import LensManifest
from wonder.lens.registry import LensRegistry
from wonder.names import WORKFLOW_QUEUE

pytestmark = pytest.mark.usefixtures("workers")

TEXT = "I was charged twice for my invoice."


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LensManifest]:
    """Seconds of training: enough to speak, too little to be believed, which its measured fidelity says."""
    folder = tmp_path_factory.mktemp("lenses") / "support-desk"
    return folder, make(folder, Recipe(documents=300, warm_start=30, grpo=0, rows=128))


@pytest.mark.timeout(420)
async def test_a_worker_with_a_lens_puts_the_states_of_an_answer_into_words(
    client: Client, address: str, unique: str, engine: TraceEngine, trained: tuple[Path, LensManifest], tmp_path: Path
) -> None:
    folder, manifest = trained
    assert manifest.target.fingerprint == engine.info.fingerprint
    registry = LensRegistry(tmp_path)
    registry.register(folder)
    with pytest.raises(LensNotPromoted, match="nothing was moved"):
        registry.promote(manifest.name, manifest.id, Bars(), at=NOW)
    command = ("workers.gpu", "--task-queue", "explained", "--threads", "1", "--lens", str(tmp_path / manifest.id))
    async with worker(*command, address=address):
        (trace,) = await client.execute_workflow(
            AskWorkflow.run, Ask(text=TEXT, how="explained"), id=unique, task_queue=WORKFLOW_QUEUE
        )
    values = sorted(t for field in trace.field_confidences.values() for t in range(field.start, field.stop))
    assert [found.position for found in trace.explanations] == values
    assert all(found.text for found in trace.explanations)
    assert {found.lens for found in trace.explanations} == {manifest.id} == {trace.bundles["explanations"]}
    assert {found.fidelity for found in trace.explanations} == {manifest.metrics.fve}
    (plain,) = await client.execute_workflow(
        AskWorkflow.run, Ask(text=TEXT, how="typed"), id=f"{unique}-plain", task_queue=WORKFLOW_QUEUE
    )
    assert plain.tokens == trace.tokens
    assert plain.token_confidences == trace.token_confidences
    told = await wonder("lens", "explain", unique, "--json", env={"TEMPORAL_ADDRESS": address})
    assert told.code == 0
    assert json.loads(told.out)[0]["explanations"] == [item.model_dump(mode="json") for item in trace.explanations]
    shown = await wonder("explain", unique, env={"TEMPORAL_ADDRESS": address})
    assert shown.out.count("a lens's guess") == len(values)


async def test_a_worker_without_a_lens_ends_the_workflow_with_a_sentence(client: Client, unique: str) -> None:
    with pytest.raises(WorkflowFailureError) as caught:
        await client.execute_workflow(
            AskWorkflow.run, Ask(text=TEXT, how="explained_by_nobody"), id=unique, task_queue=WORKFLOW_QUEUE
        )
    cause: Any = caught.value.cause
    assert "start it with --lens FOLDER, or leave explain out" in str(cause)
    assert cause.type == "SettingNotSupported"
