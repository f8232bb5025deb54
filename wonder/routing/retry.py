"""`Retry`: what is changed when an action runs again: its model, how tokens are drawn, how often, with what context."""

from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError, ValidationInfo, field_validator, model_validator

from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.wire import Settings


class Retry(Settings):
    """One rung of a ladder. What is not named stays as the action says; in JSON and YAML a bare string is a model."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """Another model; a worker must serve its queue."""
    sampling: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of `Sampling` that differ, such as `{"temperature": 0.7}`."""
    samples: int = Field(default=0, ge=0, le=64)
    """Further answers to draw beside it; the confidence is then how many of them agree (`self_consistency`), unless
    `capture` names another method."""
    capture: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of `ThoughtCapture` that differ, such as `{"confidence_method": "semantic_entropy"}`."""
    context: dict[str, str] = Field(default_factory=dict)
    """Variable of the prompt → dotted path in the run's state that fills it this time."""

    @model_validator(mode="before")
    @classmethod
    def _a_string_is_a_model(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @field_validator("sampling", "capture")
    @classmethod
    def _are_settings(cls, value: dict[str, JsonValue], info: ValidationInfo) -> dict[str, JsonValue]:
        try:
            (Sampling if info.field_name == "sampling" else ThoughtCapture).model_validate(value)
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in error.errors())
            raise ValueError(f"{value!r} cannot be ({found})") from None
        return value

    @property
    def changes_nothing(self) -> bool:
        """Whether the action would run just as before."""
        return self == Retry()

    def sampled(self, sampling: Sampling) -> Sampling:
        """An action's sampling with the changes made."""
        return Sampling.model_validate({**sampling.model_dump(), **self.sampling})

    def captured(self, capture: ThoughtCapture) -> ThoughtCapture:
        """What an action reads, with the changes made."""
        drawn = {"samples": self.samples, "confidence_method": "self_consistency"} if self.samples else {}
        return ThoughtCapture.model_validate({**capture.model_dump(), **drawn, **self.capture})

    def __str__(self) -> str:
        parts = [
            *([f"the model {self.model}"] if self.model else []),
            *([f"{self.samples} samples"] if self.samples else []),
            *(f"{name} {value}" for name, value in {**self.sampling, **self.capture}.items()),
            *(f"{name} filled in" for name in self.context),
        ]
        return " and ".join(parts) or "nothing changed"
