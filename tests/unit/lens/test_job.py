"""What follows the end of a job, and how more is trained: pure functions."""

from typing import Any

import pytest

from lens_training.job.endings import FRUITLESS, after
from lens_training.job.extending import extended
from lens_training.job.orders import JobEnd
from lens_training.job.sweep import arm_spec
from lens_training.run_spec import RunSpec
from lens_training.spec import parse
from tests.unit.lens.conftest import Specify
from wonder.errors import SpecError
from wonder.training.types import ExtendInput, SweepRun, Tries


def ended(how: str, step: int = 0, **more: Any) -> JobEnd:
    kept = [at for at in (step - 20, step - 10, step) if at > 0]
    found = {"how": how, "step": step, "checkpoint": step, "checkpoints": kept, "mark": float(step), **more}
    return JobEnd.model_validate(found)


@pytest.mark.parametrize("how", ["preempted", "lost", "stalled", "crashed"])
def test_a_job_that_is_taken_away_costs_nothing_as_long_as_it_gets_further(how: str) -> None:
    tries = Tries()
    for step in range(10, 500, 10):
        verdict = after(ended(how, step), tries, training=True)
        assert (verdict.then, verdict.wait_s) == ("again", 0.0)
        tries = verdict.tries
    assert (tries.attempt, tries.fruitless, tries.rate_scale, tries.pieces) == (49, 0, 1.0, 1)


def test_attempts_that_come_no_further_wait_longer_and_longer_and_end_with_a_sentence() -> None:
    tries, waits = Tries(mark=30.0), []
    while (
        verdict := after(ended("lost", 30, message="killed by SIGKILL", node="n7"), tries, training=True)
    ).then == "again":
        waits.append(verdict.wait_s)
        tries = verdict.tries
    assert waits == [1, 4, 16, 64]
    assert len(waits) == FRUITLESS - 1
    assert verdict.error == "NoProgress"
    assert "5 attempts in a row came no further than 30" in verdict.note
    assert "killed by SIGKILL" in verdict.note


def test_what_the_run_itself_ended_counts_for_nothing() -> None:
    tries = Tries(fruitless=4, mark=30.0, back_to=20)
    verdict = after(ended("preempted", 30), tries, training=True, asked=True)
    assert (verdict.then, verdict.note) == ("again", "")
    assert verdict.tries == Tries(attempt=1, fruitless=4, mark=30.0)


def test_memory_that_is_too_small_is_answered_once_by_smaller_pieces() -> None:
    end = ended("failed", 40, error="OutOfMemory", message="step 47 does not fit into memory")
    first = after(end, Tries(), training=True)
    assert (first.then, first.tries.pieces, first.tries.out_of_memory) == ("again", 2, 1)
    second = after(end, first.tries, training=True)
    assert (second.then, second.error) == ("fail", "OutOfMemory")
    assert "also with 2 times as many pieces: step 47" in second.note
    assert after(end, Tries(), training=False).then == "fail"


def test_a_loss_that_is_no_number_is_answered_twice_by_an_older_checkpoint_and_half_the_rate() -> None:
    end = ended("failed", 40, error="Diverged", message="step 44: the loss is nan")
    first = after(end, Tries(mark=40.0), training=True)
    assert (first.then, first.tries.rate_scale, first.tries.back_to) == ("again", 0.5, 30)
    done = after(ended("segment_done", 80), first.tries, training=True)
    assert (done.then, done.tries.rate_scale, done.tries.back_to) == ("go_on", 0.5, None)
    second = after(ended("failed", 20, error="Diverged"), done.tries, training=True)
    assert (second.then, second.tries.rate_scale, second.tries.back_to) == ("again", 0.25, 10)
    third = after(end, second.tries, training=True)
    assert (third.then, third.error) == ("fail", "Diverged")
    assert "after 2 times with half the rate, the last 0.25 of it: step 44" in third.note
    assert after(ended("failed", 0, error="Diverged"), Tries(), training=True).tries.back_to == 0


@pytest.mark.parametrize("error", ["SpecError", "DigestMismatch", "CorruptCheckpoint", "LeaseLost", "ArtifactCorrupt"])
def test_what_would_be_the_same_the_next_time_is_never_tried_again(error: str) -> None:
    verdict = after(ended("failed", 40, error=error, message="a sentence"), Tries(), training=True)
    assert (verdict.then, verdict.error, verdict.note) == ("fail", error, "a sentence")


@pytest.fixture
def spec(specify: Specify) -> RunSpec:
    phases = [{"objective": "warm_start", "steps": 10, "decoder_rate": "1e-3 -> 1e-4", "tau": "1 -> 0.5 over 0.5f"}]
    return parse(RunSpec, specify("data").model_dump(mode="json") | {"run": {"phases": phases}})  # type: ignore[arg-type]


def test_further_steps_go_on_with_the_last_values_and_leave_what_has_begun_as_it_is(spec: RunSpec) -> None:
    more = extended(spec, ExtendInput(steps=7))
    assert more.run is not None
    assert spec.run is not None
    assert more.run.phases[0] == spec.run.phases[0]
    last = more.run.phases[1]
    assert (last.steps, last.objective, last.decoder_rate, last.tau) == (7, "warm_start", "0.0001", "0.5")
    assert more.training_digest(10) == spec.training_digest(10)
    assert more.training_digest(11) != spec.training_digest(10)


def test_arms_share_their_data_and_a_misspelt_setting_is_named(spec: RunSpec) -> None:
    def arm(changes: dict[str, Any]) -> dict[str, Any]:
        return arm_spec(SweepRun(spec=spec.model_dump(mode="json"), arms={"a": changes}), "a")

    found = arm({"lens.length": 4, "run.phases.0.steps": 5, "lens.adapters": {"rank": 4}})
    assert (found["run_name"], found["lens"]["length"], found["run"]["phases"][0]["steps"]) == ("arm-a", 4, 5)
    assert parse(RunSpec, found).lens.adapters is not None
    for changes, says in (
        ({"dump.seed": 5}, "arm a changes dump"),
        ({"lens.lenght": 4}, "lens.lenght is no setting: did you mean length"),
        ({"run.phases.3.steps": 4}, "3 is not a place in a list of 1"),
        ({"run": None}, "nothing to compare"),
    ):
        with pytest.raises(SpecError, match=says):
            arm(changes)
