"""Which split a document belongs to and which of its positions are read: from hashes alone, whoever computes them."""

import hashlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lens_training.spec import DumpSpec

RULE: Final = (
    "split: blake2b(seed|content), content being a hash of the document's tokens, so equal documents share a split; "
    "positions: the smallest of mix(blake2b(seed|document) + position), document being its number in the corpus"
)

PIECE: Final = 4096
"""Documents whose positions are drawn at once."""


def split_of(content: int, spec: DumpSpec) -> int:
    """Index into `SPLITS` of a document, by the hash of its tokens."""
    shares = (spec.shares.train, spec.shares.val, spec.shares.test)
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
    start_K, pos_N, _ = positions_of_all(np.array([document]), np.array([length]), spec)
    return int(start_K[0]), pos_N


def positions_of_all(
    document_K: NDArray[np.int64], length_K: NDArray[np.int64], spec: DumpSpec
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The same of many documents: where each context begins, all positions, and how many each document has."""
    own_K = np.array([_hash(f"{spec.seed}|{document}") for document in document_K.tolist()], np.uint64)
    window_K = np.minimum(length_K, spec.context_length)
    start_K = np.zeros(len(length_K), np.int64)
    if spec.window == "random":
        start_K = (own_K % (length_K - window_K + 1).astype(np.uint64)).astype(np.int64)
    count_K, found = rows_of(length_K, spec), []
    for first in range(0, len(own_K), PIECE):
        piece = slice(first, first + PIECE)
        found.append(_smallest(own_K[piece], window_K[piece], count_K[piece], spec))
    return start_K, np.concatenate(found) if found else np.empty(0, np.int64), count_K


def _smallest(
    own_K: NDArray[np.uint64], window_K: NDArray[np.int64], count_K: NDArray[np.int64], spec: DumpSpec
) -> NDArray[np.int64]:
    most = spec.positions_per_document
    candidate_C = np.arange(spec.minimum_position, max(int(window_K.max()), spec.minimum_position + 1))
    key_KC = mix(candidate_C.astype(np.uint64) + own_K[:, None])
    # No two candidates of a document share a key, `mix` being one-to-one; those outside are behind all others, so
    # that a document takes as many from the front as it may.
    key_KC[candidate_C >= window_K[:, None]] = np.iinfo(np.uint64).max
    if most < len(candidate_C):
        chosen_KP = np.argpartition(key_KC, most - 1, axis=1)[:, :most]
    else:
        chosen_KP = np.broadcast_to(np.arange(len(candidate_C)), key_KC.shape)
    pos_KP = np.sort(candidate_C[chosen_KP], axis=1)
    return pos_KP[np.arange(pos_KP.shape[1]) < count_K[:, None]].astype(np.int64)


def mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter 64-bit numbers (splitmix64; Steele, Lea and Flood 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
