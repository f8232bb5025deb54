"""Writes a text as people do: lower case, stops and apostrophes left out, small words swallowed, letters mistyped."""

import random
from typing import Final

from wonder.embedded.phrases import CATALOGUE

SMALL_WORDS: Final = frozenset(("i", "a", "an", "the", "my", "is", "was", "has", "have", "we", "our", "it"))
NAMES: Final = frozenset(name.lower() for names in CATALOGUE.values() for name in names)


def smudge(rng: random.Random, text: str, *, shouted: float = 0.0) -> str:
    """Return the text with zero or more of the habits; about the share `shouted` of texts is all in capitals."""
    if rng.random() < 0.04:
        text = _swallow(rng, text)
    if rng.random() < 0.15:
        text = text.replace("'", rng.choice(("", "", "’")))
    if rng.random() < 0.16:
        text = text.lower()
    elif rng.random() < shouted:
        text = text.upper()
    if rng.random() < 0.06:
        text = text.replace(".", "").replace(",", "")
    elif rng.random() < 0.2:
        text = text.rstrip(".")
    elif rng.random() < 0.05:
        text = text.rstrip(".") + rng.choice(("!", "!!", "??", "..."))
    if rng.random() < 0.12:
        text = _mistype(rng, text)
    return text


def _swallow(rng: random.Random, text: str) -> str:
    words = text.split(" ")
    kept = [word for word in words if word.lower() not in SMALL_WORDS or rng.random() < 0.3]
    return " ".join(kept or words)


def _mistype(rng: random.Random, text: str) -> str:
    words = text.split(" ")
    # Names keep their spelling (they alone tell the team), and the first and last letter stay, as in real typos.
    long = [place for place, word in enumerate(words) if len(word) > 4 and word.isalpha() and word.lower() not in NAMES]
    long = [place for place in long if words[place].islower()]
    if long:
        word = words[place := rng.choice(long)]
        at = rng.randint(1, len(word) - 3)
        middle = rng.choice((word[at + 1] + word[at], word[at + 1] + word[at], word[at], word[at] * 2 + word[at + 1]))
        words[place] = word[:at] + middle + word[at + 2 :]
    return " ".join(words)
