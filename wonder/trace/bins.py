"""`TimeBins`: what a long answer's per-token and per-layer numbers leave behind, a few bytes per layer."""

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import Field

from wonder.wire import WireRecord

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
"""The 85 characters of RFC 1924, which is `base64.b85encode`; JSON escapes none of them."""
UNKNOWN: Final = len(ALPHABET) - 1
"""The code of a number that is not known."""
STEPS: Final = UNKNOWN - 1
"""Codes 0 to this lie evenly from a row's lowest to its highest number."""
BOUNDS: Final = 5
"""Characters of a row before its codes."""
LARGEST: Final = 3.3e38


class BinnedTable(WireRecord):
    """A table of numbers, one character each.

    `data` holds the rows, one after the other: the row's lowest and highest number as bfloat16 (the upper half of a
    float32, little-endian, rounded outwards), both in five characters of `base64.b85encode`; then one character per
    column, the first 84 of that alphabet evenly between the two bounds, the last one for a number that is not known.
    A decoded number is off by at most 1/166 of its row's span, and 1e-4 of the row's largest.
    """

    rows: list[str] = Field(default_factory=list)
    """Names of the rows; empty: "0", "1", "2", …"""
    columns: int
    data: str

    @classmethod
    def of(cls, rows: Mapping[str, Sequence[float | None]]) -> "BinnedTable":
        """Pack a table; its rows are of one length."""
        names = list(rows)
        return cls(
            rows=[] if names == [str(at) for at in range(len(names))] else names,
            columns=max((len(row) for row in rows.values()), default=0),
            data="".join(_pack(row) for row in rows.values()),
        )

    def numbers(self) -> dict[str, list[float | None]]:
        """Row → its numbers, as near as one character each allows; None: not known.

        Raises:
            ValueError: The data is not that of such a table.
        """
        width = BOUNDS + self.columns
        count, rest = divmod(len(self.data), width)
        if rest or len(self.rows) not in (0, count) or set(self.data) - set(ALPHABET):
            raise ValueError(
                f"found {len(self.data)} characters for {len(self.rows) or count} rows of {self.columns} columns, "
                f"wanted {width} each, all of the base85 alphabet: the table was cut, or not packed by BinnedTable.of"
            )
        names = self.rows or [str(at) for at in range(count)]
        return {name: _unpack(self.data[at * width : (at + 1) * width]) for at, name in enumerate(names)}


class TimeBins(WireRecord):
    """Summaries over equal stretches of an answer.

    Bin b of `bins` covers the generated tokens from b · tokens // bins up to, not including, (b + 1) · tokens // bins.
    """

    tokens: int
    bins: int
    tables: dict[str, BinnedTable] = Field(default_factory=dict)
    """`tokens`: a row for each list over tokens (means per bin), and `lowest_confidence`, the least of
    `token_confidences` in each bin. `layer_norms`, `representation_shifts`, `attention_entropy`: rows are layers,
    columns are bins (means). `expert_distribution`: rows are router layers, columns are experts (whole answer)."""

    def span(self, index: int) -> range:
        """The generated tokens of a bin."""
        return bin_span(self.tokens, self.bins, index)

    def table(self, name: str) -> dict[str, list[float | None]]:
        """A table of `tables`, decoded; empty where it was not read."""
        return self.tables[name].numbers() if name in self.tables else {}


def bin_span(tokens: int, bins: int, index: int) -> range:
    """The tokens of one bin."""
    return range(index * tokens // bins, (index + 1) * tokens // bins)


def means(numbers: Sequence[float | None], bins: int) -> list[float | None]:
    """Mean of each bin's known numbers; None where none is known."""
    found: list[float | None] = []
    for index in range(bins):
        known = [x for at in bin_span(len(numbers), bins, index) if (x := numbers[at]) is not None]
        found.append(math.fsum(known) / len(known) if known else None)
    return found


def lowest(numbers: Sequence[float | None], bins: int) -> list[float | None]:
    """Smallest of each bin's known numbers; None where none is known."""
    spans = (bin_span(len(numbers), bins, index) for index in range(bins))
    return [min((x for at in span if (x := numbers[at]) is not None), default=None) for span in spans]


def _pack(row: Sequence[float | None]) -> str:
    known = [x for x in row if x is not None]
    low, high = _outwards(min(known, default=0.0), up=False), _outwards(max(known, default=0.0), up=True)
    step = (_wide(high) - _wide(low)) / STEPS

    def code(number: float | None) -> int:
        if number is None:
            return UNKNOWN
        return min(STEPS, max(0, round((number - _wide(low)) / step))) if step > 0 else 0

    return base64.b85encode(low + high).decode() + "".join(ALPHABET[code(number)] for number in row)


def _unpack(row: str) -> list[float | None]:
    bounds = base64.b85decode(row[:BOUNDS])
    low, high = _wide(bounds[:2]), _wide(bounds[2:])
    step = (high - low) / STEPS
    return [None if code == ALPHABET[UNKNOWN] else low + step * ALPHABET.index(code) for code in row[BOUNDS:]]


def _outwards(number: float, *, up: bool) -> bytes:
    """The nearest bfloat16 that is not below (above) a number."""
    # As a float32 first: cutting one of those off is always towards 0.
    (number,) = struct.unpack("<f", struct.pack("<f", min(LARGEST, max(-LARGEST, number))))
    half = struct.pack("<f", number)[2:]
    if (_wide(half) < number) if up else (_wide(half) > number):
        half = struct.pack("<H", struct.unpack("<H", half)[0] + 1)
    return half


def _wide(half: bytes) -> float:
    (number,) = struct.unpack("<f", b"\x00\x00" + half)
    return float(number)
