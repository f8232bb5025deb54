"""Second messages about a ticket that do not say what the ticket was about: for training, and to measure with."""

import random
from collections.abc import Iterator
from typing import Final

from wonder.embedded.world import stream

MOST_WORDS: Final = 14
"""Of a text about something else that serves as a follow-up."""

FOLLOW_UPS: Final = (
    "",
    "I am writing again about my earlier message.",
    "Any news on this?",
    "Please see my last message.",
    "This is still open.",
    "Hello, I am still waiting for an answer.",
    "What happens with my request now?",
    "Following up on what I wrote before.",
    "It is the same matter as before.",
    "As I told you already.",
    "Did you get what I sent you?",
    "See above.",
    "I have not heard back from you.",
    "Once more about the same thing.",
    "Did anybody read my message?",
    "Who looks after this now?",
    "Nothing has changed since I wrote to you.",
    "I do not want to explain it all again.",
    "Hi, me again.",
    "You know what it is about.",
)
"""With which the map is trained, besides texts about other things; the first is a message without words."""

NEW_FOLLOW_UPS: Final = (
    "Just checking in on my earlier request.",
    "Have you had time to look at it?",
    "I wrote to you before about this.",
    "Is there any progress with my case?",
    "Please read what I said the first time.",
    "My question from before remains.",
    "Could somebody reply to what I wrote?",
    "The details are in my first message.",
)
"""Never trained with."""


def follow_ups(seed: int) -> Iterator[str]:
    """Yield follow-ups to train with, without end: half of them listed above, half about anything but the desk."""
    rng = random.Random(seed)
    strange = stream(seed=seed, split="train", mix={"off_topic": 1.0})
    while True:
        yield rng.choice(FOLLOW_UPS)
        yield next(ticket.text for ticket in strange if len(ticket.text.split()) <= MOST_WORDS)
