"""Schedules as readable strings: how a weight, a rate or a temperature moves over a run.

`0.3` is constant. `1 -> 0.5 over 0.8f` goes from 1 to 0.5 within the first 0.8 of the run and stays there.
`0 for 0.15f then 1 -> 0.1` holds, then moves until the end of the run. Lengths are steps (`500s`), epochs (`2e`) or
fractions of the run (`0.3f`); a curve may follow in brackets: `linear` (default), `cosine`, `geometric`.
"""

import math
import re
from dataclasses import dataclass
from typing import Final, Literal

from wonder.errors import SpecError

Curve = Literal["linear", "cosine", "geometric"]

_NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LENGTH: Final = rf"({_NUMBER})([sef])"
_PIECE: Final = re.compile(
    rf"^(?P<start>{_NUMBER})(?:\s*->\s*(?P<end>{_NUMBER}))?"
    rf"(?:\s+(?:over|for)\s+(?P<length>{_NUMBER})(?P<unit>[sef]))?(?:\s*\[(?P<curve>linear|cosine|geometric)\])?$"
)


@dataclass(frozen=True)
class _Piece:
    start: float
    end: float
    length: float | None
    unit: str
    curve: Curve

    def at(self, share: float) -> float:
        share = min(1.0, max(0.0, share))
        if self.curve == "geometric":
            return float(self.start * (self.end / self.start) ** share)
        if self.curve == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + (self.end - self.start) * share


@dataclass(frozen=True)
class Schedule:
    """A number that depends on the step."""

    text: str
    pieces: tuple[_Piece, ...]

    @classmethod
    def parse(cls, text: str | float) -> "Schedule":
        """Read a schedule.

        Raises:
            SpecError: It is none; the message shows the forms.
        """
        pieces = []
        parts = [part.strip() for part in re.split(r"\bthen\b", str(text))]
        for at, part in enumerate(parts):
            found = _PIECE.match(part)
            if found is None:
                raise SpecError(
                    f"schedule {str(text)!r}: {part!r} is not a piece of one; write `0.3`, `1 -> 0.5 over 0.8f`, "
                    "`0 for 500s then 1 -> 0.1 [cosine]` (s steps, e epochs, f fraction of the run)"
                )
            if found["length"] is None and at + 1 < len(parts):
                raise SpecError(f"schedule {str(text)!r}: {part!r} needs a length (`for 500s`) before `then`")
            start = float(found["start"])
            end = start if found["end"] is None else float(found["end"])
            curve: Curve = found["curve"] or "linear"  # type: ignore[assignment]
            if curve == "geometric" and start * end <= 0:
                raise SpecError(f"schedule {str(text)!r}: a geometric curve needs two numbers of one sign, not zero")
            length = None if found["length"] is None else float(found["length"])
            if length is not None and length <= 0:
                raise SpecError(f"schedule {str(text)!r}: a length is more than 0")
            pieces.append(_Piece(start, end, length, found["unit"] or "f", curve))
        return cls(str(text), tuple(pieces))

    def at(self, step: int, steps: int, steps_per_epoch: int = 1) -> float:
        """The value at a step.

        Args:
            step: From 0.
            steps: Of the whole run.
            steps_per_epoch: For lengths in epochs.
        """
        begin = 0.0
        for piece in self.pieces[:-1]:
            length = _steps(piece, steps, steps_per_epoch)
            if step < begin + length:
                return piece.at((step - begin) / length)
            begin += length
        last = self.pieces[-1]
        length = max(1.0, steps - begin) if last.length is None else _steps(last, steps, steps_per_epoch)
        return last.at((step - begin) / length)


def _steps(piece: _Piece, steps: int, steps_per_epoch: int) -> float:
    assert piece.length is not None
    return piece.length * {"s": 1, "e": steps_per_epoch, "f": steps}[piece.unit]
