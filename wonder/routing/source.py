"""Where something stands in a condition, and errors that point at it."""

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from wonder.errors import ConditionError

SHOWN_NAMES = 8


class Span(NamedTuple):
    """Characters `start` to `stop` (one past the last) of the source."""

    start: int
    stop: int

    def to(self, other: "Span") -> "Span":
        """From the start of this span to the end of another."""
        return Span(self.start, other.stop)


NOWHERE = Span(0, 0)
"""The span of what was built by code and never written."""


def error(source: str, span: Span, message: str) -> ConditionError:
    """The message, the line of the source, and carets under the span."""
    begin = source.rfind("\n", 0, span.start) + 1
    end = source.find("\n", span.start)
    end = len(source) if end < 0 else end
    # Tabs are kept so that the carets stay below the text whatever a tab's width.
    margin = "".join("\t" if char == "\t" else " " for char in source[begin : span.start])
    carets = "^" * max(1, min(span.stop, end) - span.start)
    return ConditionError(f"{message}\n  {source[begin:end]}\n  {margin}{carets}")


def suggestion(name: str, names: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the first few names there are; never empty."""
    known = list(names)
    whole = [candidate for candidate in known if len(name) > 3 and name in candidate]
    if close := whole or difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f"did you mean {close[0]!r}?"
    if not known:
        return "there are none"
    more = ", …" if len(known) > SHOWN_NAMES else ""
    return f"there are {', '.join(known[:SHOWN_NAMES])}{more}"
