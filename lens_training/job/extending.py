"""More to train than a run was started with: pure, so that an update is checked before it is recorded."""

from lens_training.run_spec import Phase, RunSpec
from lens_training.schedules import Schedule
from lens_training.spec import parse
from wonder.errors import SpecError
from wonder.training.types import ExtendInput

SCHEDULED = ("decoder_rate", "encoder_rate", "tau", "kl", "lm", "anchor", "entropy")


def extended(spec: RunSpec, more: ExtendInput) -> RunSpec:
    """The specification with further phases; what it had is unchanged, so that its checkpoints still hold.

    Raises:
        SpecError: Nothing was asked for, both forms at once, or a phase cannot be.
    """
    if spec.run is None:
        raise SpecError("this run makes data only, so there is nothing to extend: start one with run.phases")
    if (more.steps is None) == (not more.phases):
        raise SpecError(
            'say how much further, in one of two ways: {"steps": 500}, or {"phases": [{"objective": "grpo", …}]}'
        )
    found = [parse(Phase, value, f"phases[{at}]") for at, value in enumerate(more.phases)]
    if more.steps is not None:
        found = [_held(spec.run.phases[-1], more.steps)]
    run = spec.run.model_copy(update={"phases": (*spec.run.phases, *found)})
    return parse(RunSpec, {**spec.model_dump(mode="json"), "run": run.model_dump(mode="json")})


def _held(last: Phase, steps: int) -> Phase:
    """A phase like the last one, with every schedule at the value that it ended with."""
    ends = {name: f"{Schedule.parse(getattr(last, name)).at(last.steps, last.steps):.12g}" for name in SCHEDULED}
    return last.model_copy(update={**ends, "steps": steps})
