"""Which split a text, a name or a word belongs to: told by hash, so that it needs no list."""

import hashlib
from typing import Final, Literal

Split = Literal["train", "held_out"]

HELD_OUT_SHARE: Final = 0.25
"""Share of all texts, by hash, that never occurs in training."""


def split_of(text: str) -> Split:
    """Return the split that a text (or a made-up name) belongs to, by hash, case ignored."""
    fraction = int.from_bytes(hashlib.sha256(text.lower().encode()).digest()[:4]) / 2**32
    return "held_out" if fraction < HELD_OUT_SHARE else "train"
