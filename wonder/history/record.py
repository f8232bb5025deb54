"""`DecisionRecord`: one past decision with all that it rested on, small enough to keep a hundred thousand of."""

import gzip
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from pydantic import Field, JsonValue, ValidationError

from wonder.calibration.bundle import CalibrationBundle
from wonder.errors import ExportError
from wonder.routing.context import Context
from wonder.routing.decision import RouteDecision
from wonder.trace.schema import ThoughtTrace
from wonder.wire import Probability, WireModel, WireRecord

LATEST = 1
"""The version of records that this code writes, and the newest that it reads."""

PER_TOKEN = {
    "tokens",
    "token_confidences",
    "token_log_probs",
    "generation_probs",
    "logits_entropy",
    "token_margins",
    "top_alternatives",
    "top5_negentropy",
    "self_certainty",
    "boosted_probs",
    "key_attention_pairs",
    "compressed_state",
    "artifacts",
    "quantiles",
}
"""What a slim record leaves out of the trace."""


class RowRecord(WireRecord):
    """One row of the table that decided."""

    name: str
    to: list[str]
    condition: str


class DecisionRecord(WireModel):
    """One decision, what it was taken from, and what a person said of the answer, if one did."""

    run: str
    """Workflow id."""
    run_id: str = ""
    workflow_type: str = ""
    at: datetime | None = None
    """When the run started."""
    after: str
    visit: int = 1
    targets: list[str]
    rung: int = 0
    """How often the answer had been tried again before."""
    row: str | None = None
    rows: list[RowRecord] = Field(default_factory=list)
    table_digest: str = ""
    table: str = ""
    propensity: Probability = 0.0
    """Chance that a person would look at the answer, as it was before the draw."""
    audit: bool = False
    trace: ThoughtTrace
    output: JsonValue = None
    state: dict[str, JsonValue] = Field(default_factory=dict)
    calibration: CalibrationBundle | None = None
    right: bool | None = None
    """What a person said of the answer; None: nobody was asked."""


def records_of(
    ctx: Context,
    *,
    run: str,
    run_id: str = "",
    workflow_type: str = "",
    at: datetime | None = None,
    right: dict[tuple[str, int], bool] | None = None,
    whole: bool = False,
) -> list[DecisionRecord]:
    """The decisions of one run, in order.

    Args:
        ctx: Of the run.
        run: Its workflow id.
        run_id: Of the execution.
        workflow_type: Of the run.
        at: When it started.
        right: (action, visit) → what a person said of that answer.
        whole: Keep the per-token lists of traces too; without them a record has about a kilobyte.
    """
    found = []
    for decision in ctx.decisions:
        traces = [trace for trace in ctx.thought_traces if trace.action == decision.after]
        # Where an action failed or a budget was spent, no row decided.
        if len(traces) < decision.visit or decision.reason in ("error", "budget"):
            continue
        trace = traces[decision.visit - 1]
        is_latest = trace is traces[-1]
        judged = (right or {}).get((decision.after, decision.visit))
        found.append(
            DecisionRecord(
                run=run,
                run_id=run_id,
                workflow_type=workflow_type,
                at=at,
                after=decision.after,
                visit=decision.visit,
                targets=decision.targets,
                rung=decision.rung,
                row=decision.row,
                rows=[RowRecord(name=row.name, to=row.to, condition=row.condition) for row in decision.rows],
                table_digest=decision.table_digest,
                table=decision.table,
                propensity=_propensity(decision, judged),
                audit=decision.audit,
                trace=trace if whole else slim(trace),
                output=ctx.model_dump(mode="json", include={"outputs"})["outputs"].get(decision.after)
                if is_latest
                else None,
                state=ctx.model_dump(mode="json", include={"state"})["state"],
                calibration=ctx.calibrations.get(decision.after) if is_latest else None,
                right=judged,
            )
        )
    return found


def slim(trace: ThoughtTrace) -> ThoughtTrace:
    """The trace without its per-token lists: its signals, layers, concepts, claims and experts stay."""
    fresh = {name: field.get_default(call_default_factory=True) for name, field in ThoughtTrace.model_fields.items()}
    gone = {name: fresh[name] for name in PER_TOKEN & fresh.keys() if getattr(trace, name) != fresh[name]}
    left_out = dict.fromkeys(
        (name for name in gone if name not in ("artifacts", "quantiles")), "not kept in the export"
    )
    return trace.model_copy(update={**gone, "missing": {**left_out, **trace.missing}})


def write_records(records: Iterable[DecisionRecord], file: IO[str]) -> int:
    """Write records as JSON lines; gives their number."""
    count = 0
    for record in records:
        file.write(record.model_dump_json(exclude_defaults=True) + "\n")
        count += 1
    return count


def read_records(path: Path) -> Iterator[DecisionRecord]:
    """Records from JSON lines (`.gz` too), one at a time.

    Raises:
        ExportError: The file cannot be read, or a line is no record; the message names it.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _record(line, path, number)
    except (OSError, EOFError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from None


def _record(line: bytes, path: Path, number: int) -> DecisionRecord:
    try:
        record = DecisionRecord.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        raise ExportError(
            f"{path}, line {number}: {place + ': ' if place else ''}{said}; "
            "the file should be what `wonder export` writes"
        ) from None
    if record.schema_version > LATEST:
        raise ExportError(
            f"{path}, line {number} was written by a newer version of Wonder (schema {record.schema_version}, this one "
            f"reads up to {LATEST}): upgrade, or export again with this version"
        )
    return record


def _propensity(decision: RouteDecision, judged: bool | None) -> float:
    if decision.schema_version >= 2:
        return decision.propensity
    # Before there were audits the field was always 1: who was sent to a person was judged, and nobody else.
    return 0.0 if judged is None else 1.0
