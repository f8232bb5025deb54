"""Micro-stories of two friends, drawn from a grammar with known latents: who, where, what, how it ends."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

NAMES: Final = [
    "Ana",
    "Ben",
    "Cleo",
    "Dan",
    "Eva",
    "Finn",
    "Gus",
    "Hana",
    "Ida",
    "Jack",
    "Kim",
    "Leo",
    "Mia",
    "Ned",
    "Olga",
    "Pia",
    "Quin",
    "Rosa",
    "Sam",
    "Tess",
    "Uma",
    "Vic",
    "Wim",
    "Zoe",
]
PLACES: Final = {
    "sea": ("beach", "pier", "harbour", "island"),
    "farm": ("barn", "field", "stable", "orchard"),
    "city": ("market", "museum", "station", "library"),
    "wood": ("forest", "clearing", "cabin", "river"),
    "home": ("kitchen", "garden", "attic", "cellar"),
    "school": ("classroom", "playground", "gym", "hall"),
    "mountain": ("summit", "cave", "valley", "lake"),
}
ANIMALS: Final = {
    "sea": ("crab", "gull", "seal", "fish"),
    "farm": ("cow", "goat", "hen", "pig"),
    "city": ("pigeon", "cat", "dog", "rat"),
    "wood": ("fox", "deer", "owl", "bear"),
    "home": ("mouse", "kitten", "parrot", "spider"),
    "school": ("hamster", "rabbit", "frog", "turtle"),
    "mountain": ("eagle", "wolf", "marmot", "bat"),
}
THINGS: Final = [
    "ball",
    "book",
    "box",
    "cake",
    "coin",
    "cup",
    "hat",
    "kite",
    "key",
    "lamp",
    "map",
    "note",
    "ring",
    "rope",
    "scarf",
    "shell",
    "stone",
    "toy",
]
COLOURS: Final = ["red", "blue", "green", "white", "black", "yellow", "old", "small"]
MOODS: Final = {
    "happy": ("smiled", "laughed", "sang"),
    "sad": ("cried", "sighed", "sulked"),
    "angry": ("shouted", "frowned", "stamped"),
}
WEATHER: Final = ["sunny", "rainy", "windy", "snowy", "foggy", "warm"]
VERBS: Final = ["found", "lost", "bought", "borrowed", "hid", "dropped", "carried", "painted"]
SEEN: Final = ["saw", "heard", "met", "followed", "fed", "chased"]


@dataclass(frozen=True)
class Story:
    """A story and what it is about."""

    words: list[str]
    topic: str
    hero: str
    friend: str
    thing: str
    mood: str


def story(rng: random.Random) -> Story:
    """One story of about fifty words."""
    topic = rng.choice(list(PLACES))
    hero, friend = rng.sample(NAMES, 2)
    place, other = rng.sample(PLACES[topic], 2)
    animal = rng.choice(ANIMALS[topic])
    colour, thing, verb = rng.choice(COLOURS), rng.choice(THINGS), rng.choice(VERBS)
    mood = rng.choice(list(MOODS))
    sentences = [
        rng.choice(
            [
                f"one {rng.choice(WEATHER)} day {hero} went to the {place} .",
                f"{hero} and {friend} were at the {place} on a {rng.choice(WEATHER)} day .",
                f"it was {rng.choice(WEATHER)} and {hero} walked to the {place} with {friend} .",
            ]
        ),
        rng.choice(
            [
                f"there {hero} {verb} a {colour} {thing} .",
                f"{hero} {verb} the {colour} {thing} near the {other} .",
            ]
        ),
        rng.choice(
            [
                f"then a {animal} came and {friend} {rng.choice(SEEN)} it .",
                f"{friend} {rng.choice(SEEN)} a {animal} behind the {other} .",
            ]
        ),
        rng.choice(
            [
                f"the {animal} took the {thing} and ran to the {other} .",
                f"{friend} wanted the {thing} but {hero} said no .",
                f"{hero} gave the {thing} to {friend} .",
            ]
        ),
        f"{rng.choice([hero, friend])} was {mood} and {rng.choice(MOODS[mood])} .",
        rng.choice(
            [
                f"in the end {hero} kept the {colour} {thing} .",
                f"in the end {friend} left the {place} with the {thing} .",
                f"at night they talked about the {animal} and the {colour} {thing} .",
            ]
        ),
    ]
    return Story(" ".join(sentences).split(), topic, hero, friend, thing, mood)


def stories(count: int, seed: int) -> Iterator[Story]:
    """Stories of one seed; another seed shares none but by chance."""
    rng = random.Random(seed)
    for _ in range(count):
        yield story(rng)


def vocabulary() -> list[str]:
    """Every word that a story may hold, in a fixed order, after the four special tokens."""
    words = {
        *NAMES,
        *THINGS,
        *COLOURS,
        *WEATHER,
        *VERBS,
        *SEEN,
        *MOODS,
        *PLACES.keys(),
        *(word for group in (*PLACES.values(), *ANIMALS.values(), *MOODS.values()) for word in group),
        *[
            "one",
            "day",
            "went",
            "to",
            "the",
            ".",
            "and",
            "were",
            "at",
            "on",
            "a",
            "it",
            "was",
            "walked",
            "with",
            "there",
            "near",
            "then",
            "came",
            "behind",
            "took",
            "ran",
            "wanted",
            "but",
            "said",
            "no",
            "gave",
            "in",
            "end",
            "kept",
            "left",
            "night",
            "they",
            "talked",
            "about",
        ],
    }
    return ["<pad>", "<bos>", "<mark>", "<unk>", *sorted(words)]
