"""The base classes of everything that is written down: wire models and settings.

Wire models travel through workflow histories, so they only ever gain fields: unknown fields are ignored on
reading, floats are finite, and the outermost model of each message carries a `schema_version`.
"""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationInfo, model_validator

Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
"""A number in [0, 1]."""

NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
"""A finite number ≥ 0."""


class WireRecord(BaseModel):
    """A part of a message: frozen, finite floats, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class WireModel(WireRecord):
    """A whole message, with the version of its schema."""

    schema_version: int = 1
    """Raised when the meaning of a field changes; added fields do not raise it."""


class Settings(BaseModel):
    """What a person writes: frozen, and a misspelt name is refused.

    Built in Python, an unknown name is an error. Read from the wire (JSON), it is ignored, so that a newer
    client can talk to an older worker.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_unknown_names(cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if info.mode == "python" and isinstance(value, dict):
            known = {name for key, field in cls.model_fields.items() for name in (key, field.alias) if name}
            if unknown := sorted(set(value) - known):
                raise ValueError(
                    f"{cls.__name__} has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}"
                )
        return handler(value)
