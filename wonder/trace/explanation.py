"""What an action asks a lens to put into words, and what a trace then holds: a lens's guesses, never facts."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from wonder.wire import Settings, WireRecord

MOST_POSITIONS: Final = 64
LOW: Final = 0.5
"""A guess that says less of its state than this share is shown as a weak one."""
GUESS: Final = "a lens's guess"
"""What every display calls such a text."""


class Explain(Settings):
    """An action's `thought_capture.explain`: which states a lens puts into words.

    `"last"`, `"values"` and a list of positions are short for `Explain(positions=…)`.
    """

    positions: Literal["last", "values"] | list[Annotated[int, Field(ge=0)]] = "last"
    """Which states, each named by the generated token that it produced: that of the last token, those of the tokens of
    the answer's values, or those of these tokens, counted from 0 (0 is read at the last token of the prompt)."""

    lens: str | None = None
    """Name of the lens; None: the only one that the worker has."""

    max_positions: int = Field(default=8, ge=1, le=MOST_POSITIONS)
    """At most so many states; the first ones count."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"positions": value} if isinstance(value, str | list) else value


class Fidelity(WireRecord):
    """A share that was measured on held-out states."""

    value: Annotated[float, Field(le=1.0)]
    low: Annotated[float, Field(le=1.0)]
    """Bounds of its 95 % interval, over documents."""
    high: Annotated[float, Field(le=1.0)]
    rows: int
    """States it was measured on."""


class Explanation(WireRecord):
    """One state in a lens's words: a guess that was trained to let the state be told from others, and nothing more."""

    position: int
    """The generated token that the state produced, counted from 0."""
    token: str
    text: str
    layer: int
    reconstruction: Annotated[float, Field(le=1.0)] | None
    """How much of this very state the text says: 1 − ‖A − Â‖² / V, with Â what the lens's encoder reads in the text and
    V the mean squared distance of the training states from their mean. 0: no more than the mean state; below: less.
    None: the text is read as no finite state."""
    fidelity: Fidelity
    """How much the lens's texts say on average: the fraction of variance explained by what they are read as,
    1 − E‖A − Â‖² / E‖A − mean‖²."""
    lens: str
    """Id of its bundle."""
    label: str = GUESS

    @property
    def is_weak(self) -> bool:
        """Whether the text says so little of this state that it should not be leant on."""
        return self.reconstruction is None or self.reconstruction < LOW


def described(found: Explanation) -> str:
    """How far a guess is to be believed, in a phrase that stands behind its text."""
    says = "an unknown share" if found.reconstruction is None else f"{found.reconstruction:.0%}"
    weak = "WEAK, " if found.is_weak else ""
    fidelity = found.fidelity
    return (
        f"{found.label}: {weak}says {says} of this state; the lens {fidelity.value:.0%} on average "
        f"[{fidelity.low:.0%}, {fidelity.high:.0%}]"
    )


def guesses(found: Sequence[Explanation]) -> list[str]:
    """One line per state for a terminal, without control characters: what a model wrote must not steer it."""
    return [
        f"“{_clean(item.text)}” before {_clean(item.token)!r} (token {item.position}) · {described(item)}"
        for item in found
    ]


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
