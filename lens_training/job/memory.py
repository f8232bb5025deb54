"""What a run of `wonder.LensTraining` knows of itself, and how it shows it: query, details, search attributes."""

from typing import Any, Final, Literal

from temporalio import workflow
from temporalio.common import SearchAttributeKey

from lens_training.evaluate.record import SHUFFLED
from lens_training.job.details import markdown
from lens_training.job.orders import JobEnd
from lens_training.run_spec import RunSpec
from lens_training.spec import parse
from wonder.errors import SpecError
from wonder.review import attributes
from wonder.training.types import (
    OVER,
    STAGES,
    Carried,
    LensProgress,
    LensReport,
    LensResult,
    LensRun,
    Outcome,
    Stage,
    State,
)

NOTES_KEPT: Final = 20
NOTE_CHARACTERS: Final = 300
SCHEDULED: Final = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")
TIME: Final = "{time}"


class Memory:
    """The state of a run; what of it outlives a history is `carried`."""

    def __init__(self, given: LensRun) -> None:
        self.given = given
        self.carried = given.carried.model_copy(deep=True) if given.carried else Carried()
        self.wish: Literal["pause", "stop"] | None = None
        self.state: State = "paused" if self.carried.paused else "running"
        self.live: LensReport | None = None
        self.judged: JobEnd | None = None
        self.reasons: list[str] = []
        self.cancelled = False
        """By Temporal, rather than by an update."""
        self.refusal: SpecError | None = None
        self._shown = ""
        self._spec: RunSpec | None = None
        try:
            self._spec = parse(RunSpec, _placed(given.spec))
        except SpecError as error:
            self.refusal = error

    @property
    def spec(self) -> RunSpec:
        """What is to be done.

        Raises:
            SpecError: It cannot be.
        """
        if self._spec is None:
            raise self.refusal or SpecError("there is no specification")
        return self._spec

    @spec.setter
    def spec(self, changed: RunSpec) -> None:
        self._spec = changed

    @property
    def halted(self) -> bool:
        """Whether no job is to run."""
        return self.wish is not None or self.carried.paused

    def cancel(self) -> None:
        """Temporal's own cancellation is a wish to stop, with a checkpoint."""
        self.wish, self.cancelled, self.state = "stop", True, "stopping"
        self.publish()

    @property
    def stage(self) -> Stage:
        """Where the run is."""
        return STAGES[min(self.carried.at, len(STAGES) - 1)]

    @property
    def steps(self) -> int:
        """Of the whole run; 0 where only data are made."""
        return self.spec.run.steps if self.spec.run else 0

    def check(self, what: str, states: tuple[State, ...]) -> None:
        """Refuse what cannot be done in this state.

        Raises:
            SpecError: The message says why.
        """
        if self.refusal is not None:
            raise self.refusal
        if self.state not in states:
            raise SpecError(f"the run cannot be {what}: it is {self.state}, and would have to be {' or '.join(states)}")

    def note(self, sentence: str) -> None:
        """Keep what happened, with its time, for those who look."""
        self.carried.notes.append(f"{workflow.now():%Y-%m-%d %H:%M:%S} {sentence[:NOTE_CHARACTERS]}")
        del self.carried.notes[:-NOTES_KEPT]

    def progress(self) -> LensProgress:
        """How it stands."""
        spec = self._spec
        live = self.live.step if self.live is not None and self.live.step else 0
        return LensProgress(
            name=spec.name if spec else "",
            state=self.state,
            stage=self.stage,
            pool=self.given.pool,
            folder=str(spec.run_folder) if spec else "",
            segment=self.carried.segment,
            attempt=self.carried.tries.attempt,
            step=max(self.carried.step, live),
            steps=self.steps if spec else 0,
            checkpoint=max(self.carried.checkpoint, self.live.checkpoint if self.live else 0),
            rate_scale=self.carried.tries.rate_scale,
            pieces=self.carried.tries.pieces,
            report=self.live,
            evaluation=summary(self.judged),
            reasons=self.reasons,
            notes=self.carried.notes,
        )

    def publish(self, *, opening: bool = False) -> None:
        """Show the state where Temporal shows it: details (for the UI) and search attributes (for lists)."""
        progress = self.progress()
        workflow.set_current_details(markdown(progress))
        if not attributes.enabled.get() or self._spec is None:
            return
        if opening:
            queue = attributes.QUEUE.value_set(self.given.pool)
            workflow.upsert_search_attributes([queue, attributes.MODEL.value_set(self._spec.target.model)])
        shown = progress.state if progress.state in OVER or progress.state == "paused" else progress.stage
        if shown != self._shown:
            self._shown = shown
            workflow.upsert_search_attributes([attributes.STATUS.value_set(shown)])

    def result(self, outcome: Outcome) -> LensResult:
        """What it came to."""
        folder = self.spec.run_folder
        exported = outcome in ("exported", "registered")
        return LensResult(
            outcome=outcome,
            folder=str(folder),
            step=self.carried.step,
            steps=self.steps,
            segments=self.carried.segments,
            restarts=self.carried.restarts,
            evaluation=summary(self.judged),
            reasons=self.reasons,
            bundle=str(folder / "bundle") if exported else "",
            notes=self.carried.notes,
        )


def summary(end: JobEnd | None) -> dict[str, Any]:
    """What was measured, in a few numbers."""
    if end is None or end.evaluation is None:
        return {}
    lens, shuffled = end.evaluation.greedy, end.evaluation.line(SHUFFLED)
    found = {"fve": lens.fve.value, "fve_low": lens.fve.low, "fve_high": lens.fve.high}
    if lens.kl_recovered is not None:
        found["kl_recovered"] = lens.kl_recovered.value
    if shuffled is not None:
        found["shuffled_fve"] = shuffled.fve.value
    if end.current is not None:
        found["fve_of_the_lens_in_force"] = end.current.fve
    return {**{name: round(value, 4) for name, value in found.items()}, "rows": end.evaluation.rows}


def _placed(spec: dict[str, Any]) -> dict[str, Any]:
    """The specification with the time of the start in its folder."""
    folder = spec.get("folder")
    if not isinstance(folder, str) or TIME not in folder:
        return spec
    info = workflow.info()
    # A run that a schedule makes up for later belongs to the time it was due at.
    due = info.typed_search_attributes.get(SCHEDULED) or info.workflow_start_time
    return {**spec, "folder": folder.replace(TIME, f"{due:%Y%m%dT%H%M%S}")}
