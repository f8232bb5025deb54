"""What a pass changes of its requests before it has succeeded, so that it can be tried again as if never tried."""

from collections.abc import Sequence

from torch import Tensor

from wonder.engine.job import Job


class Attempt:
    """Random numbers drawn and numbers read; what a pass has written into the cache, the next one overwrites."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        """Remember how these requests stand."""
        self._before: list[tuple[Job, Tensor | None, int, dict[str, Tensor]]] = []
        for job in jobs:
            state = None if job.draw.generator is None else job.draw.generator.get_state()
            readings = job.readings  # taken once: a caller who cancels now takes it away
            steps, states = (0, {}) if readings is None else (len(readings.steps), dict(readings.states))
            self._before.append((job, state, steps, states))

    def undo(self) -> None:
        """Put them back."""
        for job, state, steps, states in self._before:
            if job.draw.generator is not None and state is not None:
                job.draw.generator.set_state(state)
            if (readings := job.readings) is not None:
                del readings.steps[steps:]
                del readings.kept[steps:]
                readings.states = dict(states)
