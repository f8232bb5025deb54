"""Which split a document belongs to and which of its positions are read: from hashes alone, whoever computes them."""

import hashlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lens_training.spec import SPLITS, DumpSpec

RULE: Final = (
    "split: blake2b(seed|content), content being a hash of the document's tokens, so equal documents share a split; "
    "positions: the smallest of mix(blake2b(seed|document) + position), document being its number in the corpus"
)


def split_of(content: int, spec: DumpSpec) -> int:
    """Index into `SPLITS` of a document, by the hash of its tokens."""
    shares = [getattr(spec.shares, name) for name in SPLITS]
    drawn = _hash(f"{spec.seed}|{content}") / 2**64
    for at, share in enumerate(shares[:-1]):
        drawn -= share
        if drawn < 0:
            return at
    # Shares that sum to one but for rounding leave nothing to a split that has none.
    return max(at for at, share in enumerate(shares) if share > 0)


def rows_of(length: NDArray[Any], spec: DumpSpec) -> NDArray[np.int64]:
    """How many positions documents of these lengths give."""
    there = np.minimum(length, spec.context_length) - spec.minimum_position
    found: NDArray[np.int64] = np.clip(there, 0, spec.positions_per_document).astype(np.int64)
    return found


def positions_of(document: int, length: int, spec: DumpSpec) -> tuple[int, NDArray[np.int64]]:
    """Where a document's context begins in it, and the positions in that context, ascending."""
    own = _hash(f"{spec.seed}|{document}")
    window = min(length, spec.context_length)
    start = own % (length - window + 1) if spec.window == "random" else 0
    candidates = np.arange(spec.minimum_position, window)
    keys = mix(candidates.astype(np.uint64) + np.uint64(own))
    chosen = candidates[np.argsort(keys, kind="stable")[: spec.positions_per_document]]
    return start, np.sort(chosen)


def mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter 64-bit numbers (splitmix64; Steele, Lea and Flood 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
