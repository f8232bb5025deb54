"""What an action asks to be done with the thought state of an earlier one, and what a trace says was done."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wonder.wire import Settings, WireRecord

InjectionKind = Literal["soft_prompt", "steering"]
SteeringMode = Literal["generated", "all"]

NO_PRIOR_STATE = "no prior thought state: no earlier action of this run left one (compress_state=True), so it ran plain"
"""What `missing["injection"]` says where an action asked for a state that was not there."""


class Injection(Settings):
    """An action's `thought_capture.inject`: the latest compressed state of the run is put into the model.

    It is a hint, not a memory, and unlike everything else of a capture it changes what the model writes.
    """

    kind: InjectionKind
    """`soft_prompt`: a learned map makes a few vectors of the state, which stand before the prompt's words as if they
    were tokens; the model needs such a map. `steering`: what sets the state apart from the average one is added to
    the states of a layer."""

    layer: int | None = Field(default=None, ge=0)
    """Steering only: the block whose output is changed; None: the one that the state was taken from."""

    strength: float = 0.2
    """Steering only: length of what is added as a share of the state's own, at every token; clamped to −1 … 1.
    Negative: away from the earlier state."""

    mode: SteeringMode = "generated"
    """Steering only: `generated` changes the last position of the prompt and every new token; `all` the whole prompt
    too."""

    @model_validator(mode="after")
    def _has_no_idle_layer(self) -> Self:
        if self.kind == "soft_prompt" and self.layer is not None:
            raise ValueError("layer belongs to kind='steering': a soft prompt enters before the first layer")
        return self


class InjectionRecord(WireRecord):
    """What was put into the model for one action."""

    kind: InjectionKind
    source: Literal["prior_state", "own"]
    """The state of an earlier action, or a vector that the caller brought."""
    bundle: str | None = None
    """Id of the bundle that made vectors of the state: the soft-prompt map, or the compressor; None for own vectors."""
    sha256: str
    """Of the vector or vectors, as float32 in little-endian order, before they were scaled."""
    soft_tokens: Annotated[int, Field(ge=0)] = 0
    """Vectors that stood before the prompt's words; they count in `prompt_tokens` and in positions."""
    layer: int | None = None
    """Steering: the block whose output was changed."""
    mode: SteeringMode | None = None
    strength: float | None = None
    """Steering: the strength that was used, which is the one asked for unless it was clamped."""
    clamped: bool = False
