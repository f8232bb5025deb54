"""Calibrated confidence and thresholds by risk, on a real server, with the real model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.worker import Replayer, Worker

from tests.integration.calibrated import Asked, ByRisk
from tests.unit.calibration.bundles import NOW, bundle
from wonder.calibration.bundle import CalibrationBundle
from wonder.calibration.certify import count
from wonder.calibration.maps import BetaMap
from wonder.calibration.registry import CalibrationRegistry, Drift
from wonder.engine import TraceEngine
from wonder.plugin import WonderPlugin
from wonder.routing.context import Context

CLEAR = "I was charged twice for my invoice."
VAGUE = "Something about my things is not as it was."


def calibration(engine: TraceEngine, **fields: object) -> CalibrationBundle:
    usual = {
        "action": "sort",
        "model": engine.info.model,
        "model_fingerprint": engine.info.fingerprint,
        "map": BetaMap(a=0.5, b=0.5, c=0.0),
        "certification": count([(0.99, False)] * 200 + [(0.6, True)] * 100),
    }
    return bundle(**usual | fields)


@asynccontextmanager
async def served(address: str, engine: TraceEngine, registry: Path, queue: str) -> AsyncIterator[None]:
    """The embedded model with a registry of calibrations, and the workflow, on a queue of their own."""
    plugin = WonderPlugin(roles=["gpu"], engine=lambda: engine, calibrations=registry)
    async with Worker(
        await Client.connect(address, plugins=[plugin]),
        task_queue=queue,
        workflows=[ByRisk],
        max_cached_workflows=0,
    ):
        yield


async def ask(client: Client, queue: str, text: str, n: int = 0) -> Context:
    asked = Asked(text=text, queue=queue)
    return await client.execute_workflow(ByRisk.run, asked, id=f"{queue}/{n}", task_queue=queue)


async def test_a_calibration_in_force_reaches_the_run_and_decides_by_risk(
    client: Client, address: str, engine: TraceEngine, unique: str, tmp_path: Path
) -> None:
    made = calibration(engine)
    CalibrationRegistry(tmp_path).promote(made, at=NOW)
    async with served(address, engine, tmp_path, unique):
        sure, vague = [await ask(client, unique, text, n) for n, text in enumerate((CLEAR, VAGUE))]
    (trace,) = sure.thought_traces
    assert trace.raw_confidence is not None
    assert trace.raw_confidence > 0.9
    assert trace.overall_confidence == made.map.at(trace.raw_confidence).value  # type: ignore[union-attr]
    assert (trace.confidence_status, trace.bundles["calibration"]) == ("calibrated", made.id)
    assert sure.calibrations == {"sort": made}
    assert sure.decisions[0].to == "resolve"
    assert sure.decisions[0].thresholds[0].bundle == made.id
    assert (vague.decisions[0].to, vague.decisions[0].reason) == ("human_review", "condition")
    history = await client.get_workflow_handle(f"{unique}/0").fetch_history()
    answers = [event.activity_task_completed_event_attributes.result for event in history.events]
    held = [payload.data for answer in answers for payload in answer.payloads]
    assert [made.id.encode() in data for data in held] == [True], "the history holds the calibration that was used"
    await Replayer(workflows=[ByRisk], plugins=[WonderPlugin(roles=["workflow"])]).replay_workflow(history)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        ("nothing", "'uncalibrated', where 'calibrated' is required"),
        ("other weights", "'uncalibrated', where 'calibrated' is required"),
        ("drifted", "drifted: calibration"),
        ("broken", "cannot be read"),
        ("few labels", "at least 15 more labels are needed"),
    ],
)
async def test_without_a_calibration_that_holds_the_run_asks_a_person(
    prepare: str, said: str, client: Client, address: str, engine: TraceEngine, unique: str, tmp_path: Path
) -> None:
    registry, made = CalibrationRegistry(tmp_path), calibration(engine)
    if prepare == "other weights":
        registry.promote(calibration(engine, model_fingerprint="0" * 64), at=NOW)
    elif prepare == "drifted":
        registry.promote(made, at=NOW)
        registry.mark_drift(made, Drift(found_at=NOW, because="the tickets have changed"))
    elif prepare == "broken":
        registry.promote(made, at=NOW)
        next(tmp_path.glob("bundles/*.json")).write_text("{}")
    elif prepare == "few labels":
        registry.promote(calibration(engine, certification=count([(0.99, False)] * 30)), at=NOW)
    async with served(address, engine, tmp_path, unique):
        found = await ask(client, unique, CLEAR)
    (decision,) = found.decisions
    assert (decision.to, decision.reason) == ("human_review", "unknown")
    assert said in decision.explanation
    assert found.thought_traces[0].confidence_status == ("calibrated" if prepare == "few labels" else "uncalibrated")
