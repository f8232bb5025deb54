"""From decided reviews to a calibration in force, over a real server."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client

from tests.integration.review.conftest import Opener
from tests.integration.review.polling import eventually
from tests.integration.shell import wonder
from wonder.calibration.maps import log_odds, sigmoid
from wonder.calibration.registry import CalibrationRegistry
from wonder.review.client import ReviewClient
from wonder.review.outcomes import ReadOutcomes, read_outcomes
from wonder.routing.decision import RouteDecision
from wonder.trace.schema import ThoughtTrace

ANSWER = {"team": "billing", "urgency": 2}


def read(action: str, confidence: float, **fields: Any) -> dict[str, Any]:
    """A review's trace and the decision that led to it, as they travel."""
    trace = ThoughtTrace(
        action=action,
        model="m",
        model_fingerprint="f" * 64,
        tokens=["billing"],
        overall_confidence=confidence,
        confidence_status="uncalibrated",
        signals={"mean_margin": 0.5},
    )
    audit = fields.pop("audit", False)
    decision = RouteDecision(
        after=action,
        to="resolve" if audit else "human_review",
        targets=["resolve" if audit else "human_review"],
        reason="condition",
        explanation="",
        row=None,
        rows=[],
        visit=1,
        propensity=0.25 if audit else 1.0,
        audit=audit,
        table_digest="",
    )
    usual = {"trace": trace, "decision": decision, "audit": audit, "answer": ANSWER, "search_attributes": False}
    return {
        name: value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        for name, value in (usual | fields).items()
    }


async def outcomes(client: Client, action: str, count: int) -> ReadOutcomes:
    """Once the list shows so many closed reviews."""
    return await eventually(
        lambda: read_outcomes(client, action=action),
        lambda found: len(found.outcomes) + found.skipped.total() >= count,
    )


async def test_every_verdict_is_read_for_what_it_says(
    client: Client, ask: Opener, reviews: ReviewClient, unique: str
) -> None:
    other = {"team": "legal", "urgency": 2}
    cases: list[tuple[dict[str, Any], str, Any]] = [
        (read(unique, 0.9), "approve", None),
        (read(unique, 0.8), "edit", other),
        (read(unique, 0.7), "edit", ANSWER),
        (read(unique, 0.6), "reject", None),
        (read(unique, 0.95, audit=True, prompt="Which team?"), "reject", None),
    ]
    for request, verdict, value in cases:
        handle = await ask(**request)
        await reviews.decide(handle.id, verdict, "ana", value=value)  # type: ignore[arg-type]
        await handle.result()
    unknown = read(unique, 0.5)
    unknown["trace"] |= {"overall_confidence": None, "confidence_status": "unknown"}
    for request in (unknown, read(unique, 0.5) | {"on_timeout": "approve", "sla_s": 0.2}):
        handle = await ask(**request)
        if request.get("on_timeout") != "approve":
            await reviews.decide(handle.id, "approve", "ana")
        await handle.result()
    found = await outcomes(client, unique, 7)
    judged = {item.signals["value_probability"]: item for item in found.outcomes}
    assert {at: item.right for at, item in judged.items()} == {
        0.9: True,
        0.8: False,
        0.7: True,
        0.6: False,
        0.95: False,
    }
    assert dict(found.skipped) == {"its confidence is unknown": 1, "nobody decided in time": 1}
    audit, routed = judged[0.95], judged[0.9]
    assert (audit.selection, audit.propensity) == ("audit", 0.25)
    assert (routed.selection, routed.propensity) == ("routed", 1.0)
    assert (routed.model, routed.model_fingerprint, routed.reviewer) == ("m", "f" * 64, "ana")
    assert routed.signals["mean_margin"] == 0.5
    assert len(audit.input) == 32
    assert routed.time is not None
    assert datetime.now(UTC) - routed.time < timedelta(minutes=5)


async def test_the_command_makes_a_calibration_from_what_people_decided(
    client: Client, ask: Opener, reviews: ReviewClient, address: str, unique: str, tmp_path: Path
) -> None:
    drawn = random.Random(3)

    async def one() -> None:
        true = drawn.betavariate(2, 0.7)
        signal = sigmoid(3 * log_odds(true))
        handle = await ask(**read(unique, signal, audit=signal >= 0.7))
        await reviews.decide(handle.id, "approve" if drawn.random() < true else "reject", "ana")
        await handle.result()

    for _ in range(10):
        await asyncio.gather(*(one() for _ in range(8)))
    await outcomes(client, unique, 80)
    command = ("calibrate", "--action", unique, "--from-reviews", "--registry", tmp_path, "--address", address)
    done = await wonder(*map(str, command))
    assert done.code == 0, done.err + done.out
    assert "80 judged" in done.out
    (entry,) = CalibrationRegistry(tmp_path).entries()
    bundle = CalibrationRegistry(tmp_path).get(entry.bundle)
    assert (bundle.action, bundle.model_fingerprint, bundle.labels) == (unique, "f" * 64, 80)
    assert bundle.certification is not None
    assert bundle.certification.labels < 80, "what was routed is thinned to the audit rate"
    checked = await wonder(*map(str, (*command, "--check")))
    assert checked.code == 0, checked.err
    nobody = await wonder(*map(str, ("calibrate", "--action", "nobody", *command[3:])))
    assert nobody.code == 4
    assert "no answers at all" in nobody.err
