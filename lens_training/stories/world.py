"""Micro-stories in which what comes next was said long ago: who is there, where, with what, and what each of them does.

A story names its people and things once and then tells what they do, in any order; so the next word hangs on a choice
made dozens of words before, which the last few words seldom repeat. That is what makes a lens worth having: where an
activation follows from the words beside it, quoting them is as good.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

NAMES: Final = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
KINDS: Final = {
    "hero": NAMES,
    "friend": NAMES,
    "place": ("beach", "barn", "market", "forest", "cave", "garden"),
    "thing": ("ball", "coin", "hat", "kite", "lamp", "map"),
    "animal": ("crab", "goat", "pigeon", "fox", "mouse", "bat"),
    "guest": ("baker", "teacher", "doctor", "guard", "king", "pirate"),
    "food": ("cake", "pie", "bread", "soup", "honey", "fish"),
}
"""What a story is about, and which words can stand for it."""
VERBS: Final = ("saw", "liked", "took", "hid", "fed", "chased")
OPENING: Final = (
    "{hero} and {friend} went to the {place} with a {thing} and {food} .",
    "there they met a {guest} and a {animal} .",
)
DOERS: Final = {"{hero}": "hero", "{friend}": "friend", "the {animal}": "animal", "the {guest}": "guest"}
OBJECTS: Final = ("the {thing}", "the {animal}", "the {food}", "the {guest}", "{hero}", "{friend}")
ENDINGS: Final = ("", " at the {place}", " with the {thing}")
SENTENCES: Final = 8
OPENING_WORDS: Final = sum(len(sentence.split()) for sentence in OPENING)


@dataclass(frozen=True)
class Story:
    """A story and what it is about."""

    words: list[str]
    about: dict[str, str]
    """The word that stands for each kind, and under `hero does`, `animal does` … what each of them always does."""


def story(rng: random.Random) -> Story:
    """One story of about seventy words."""
    about = {kind: rng.choice(words) for kind, words in KINDS.items()}
    about["friend"] = rng.choice([name for name in NAMES if name != about["hero"]])
    does = {subject: rng.choice(VERBS) for subject in DOERS}
    sentences = list(OPENING)
    for _ in range(SENTENCES):
        subject = rng.choice(list(DOERS))
        what = rng.choice([one for one in OBJECTS if one != subject])
        ending = rng.choice([one for one in ENDINGS if not one.endswith(what)])
        sentences.append(f"{subject} {does[subject]} {what}{ending} .")
    words = " ".join(sentences).format(**about).split()
    return Story(words, about | {f"{DOERS[subject]} does": verb for subject, verb in does.items()})


def stories(count: int, seed: int) -> Iterator[Story]:
    """Stories of one seed; another seed shares none but by chance."""
    rng = random.Random(seed)
    for _ in range(count):
        yield story(rng)


def vocabulary() -> list[str]:
    """Every word that a story may hold, in a fixed order, after the four special tokens."""
    frames = " ".join((*OPENING, *DOERS, *OBJECTS, *ENDINGS)).split()
    words = {*VERBS, *(word for words in KINDS.values() for word in words), *(w for w in frames if "{" not in w)}
    return ["<pad>", "<bos>", "<mark>", "<unk>", *sorted(words)]
