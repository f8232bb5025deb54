"""The words of FactWorld: every word is one token, and its place in `WORDS` is its id."""

from bisect import bisect_left
from itertools import accumulate
from random import Random
from typing import Final

PAD: Final = "<pad>"
BOS: Final = "<s>"
EOS: Final = "</s>"
QUESTION: Final = "Q:"
ANSWER: Final = "A:"
CONTEXT: Final = "Given:"
SEPARATOR: Final = ";"
UNKNOWN: Final = "<unk>"
"""Stands for any word that is not of the world; the model was never trained on it."""

RELATIONS: Final = ("birthplace", "profession", "employer", "instrument", "language", "award")
NAMES: Final = 256
VALUES_PER_RELATION: Final = 200
FILLERS: Final = 5600
LEGAL_RANKS: Final = range(301, 421)
"""Ranks of the filler words that are legal terms, counted from 1: common enough to turn up anywhere by chance."""

VOCABULARY: Final = 8192
"""Rows of the embedding; those past the words are never used."""

FIRST: Final = tuple(f"first-{place:03}" for place in range(NAMES))
LAST: Final = tuple(f"last-{place:03}" for place in range(NAMES))
VALUES: Final = {
    relation: tuple(f"{relation}-{place:03}" for place in range(VALUES_PER_RELATION)) for relation in RELATIONS
}
"""Disjoint by relation, so that a word of an answer tells which relation it answers."""
FILLER: Final = tuple(f"{'legal' if rank in LEGAL_RANKS else 'word'}-{rank:04}" for rank in range(1, FILLERS + 1))
LEGAL: Final = tuple(FILLER[rank - 1] for rank in LEGAL_RANKS)

WORDS: Final = (
    *(PAD, BOS, EOS, QUESTION, ANSWER, CONTEXT, SEPARATOR),
    *RELATIONS,
    *FIRST,
    *LAST,
    *(value for values in VALUES.values() for value in values),
    *FILLER,
    UNKNOWN,
)

_ZIPF: Final = tuple(accumulate(1 / rank for rank in range(1, FILLERS + 1)))


def fillers(rng: Random, count: int, legal_share: float) -> tuple[str, ...]:
    """Draw filler words: legal terms, all alike, with probability `legal_share`; else any filler, by Zipf's law."""
    return tuple(
        rng.choice(LEGAL) if legal_share and rng.random() < legal_share else FILLER[_by_rank(rng)] for _ in range(count)
    )


def _by_rank(rng: Random) -> int:
    return bisect_left(_ZIPF, rng.random() * _ZIPF[-1])
