"""`LabeledOutcome`: one answer that people have judged, as everything that learns from decisions reads it."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from wonder.errors import CalibrationError
from wonder.wire import WireModel

Selection = Literal["sample", "routed", "audit"]
"""How an answer came to be judged: as part of a plain sample of the traffic, because a decision sent it to a person, or
because an accepted answer was drawn for an audit."""


class LabeledOutcome(WireModel):
    """What was read while an answer was given, and whether it was right."""

    id: str
    """Of the answer; the same one judged twice counts once."""
    action: str
    model: str = ""
    model_revision: str = ""
    model_fingerprint: str = ""
    signal: str = "value_probability"
    """The action's confidence method."""
    signals: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    """Signal → its raw value."""
    right: bool | None = None
    """None: nobody judged it; such answers tell what the traffic is like."""
    propensity: float = Field(default=1.0, gt=0, le=1)
    """Chance that a person would look at it, as it was before anybody did."""
    selection: Selection = "sample"
    input: str = ""
    """Digest of what was asked and answered: the same one called right here and wrong there is a contradiction."""
    group: str = ""
    """What belongs together (a customer, a document) and must not be split between fitting and testing."""
    time: datetime | None = None
    reviewer: str = ""

    @model_validator(mode="before")
    @classmethod
    def _take_short_form(cls, value: Any) -> Any:
        if isinstance(value, dict) and "confidence" in value and "signals" not in value:
            return {**value, "signals": {value.get("signal", "value_probability"): value["confidence"]}}
        return value

    @property
    def block(self) -> str:
        """What must stay on one side of a split."""
        return self.group or self.input or self.id


def read_outcomes(path: Path, **defaults: str) -> list[LabeledOutcome]:
    """Outcomes from JSON lines: whole ones, or the short form `{"confidence": 0.93, "right": true}`.

    Args:
        path: One JSON object per line.
        defaults: Fields for lines that do not say, such as `action`; an answer without an id gets its line's number.

    Raises:
        CalibrationError: The file cannot be read, or a line is no outcome; the message names it.
    """
    found = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    found.append(_outcome(line, {"id": f"line {number}", **defaults}, f"{path}, line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path} cannot be read: {error}") from None
    return found


def write_outcomes(path: Path, outcomes: Iterable[LabeledOutcome]) -> None:
    """Write outcomes as JSON lines, as `read_outcomes` reads them."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(_lines(outcomes))


def _lines(outcomes: Iterable[LabeledOutcome]) -> Iterator[str]:
    for outcome in outcomes:
        yield outcome.model_dump_json(exclude_defaults=True) + "\n"


def _outcome(line: str, defaults: dict[str, str], where: str) -> LabeledOutcome:
    try:
        return LabeledOutcome.model_validate({**defaults, **json.loads(line)})
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:3])
        raise CalibrationError(f"{where}: {said}; {_WANTED}") from None
    except (ValueError, TypeError):
        raise CalibrationError(f"{where} is not a JSON object: {_WANTED}") from None


_WANTED = 'write {"id": …, "confidence": 0.93, "right": true}, or lines as `wonder calibrate --export` writes them'
