"""The support-desk world: a seeded source of tickets whose true posterior over teams is known."""

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from pydantic import BaseModel

from wonder.embedded.blends import FRAMES, SHARED_ISSUES
from wonder.embedded.offtopic import off_topic
from wonder.embedded.phrases import (
    CATALOGUE,
    CLOSINGS,
    CONTEXT,
    DECOYS,
    HIGH_CUES,
    ISSUES,
    LEGAL,
    LOW_CUES,
    NAMED,
    NEW_DECOYS,
    NEW_LEGAL,
    OPENINGS,
)
from wonder.embedded.slots import CITIES, DAYS, ENDINGS, ITEMS, MONTHS, PEOPLE, SYLLABLES

Team = Literal["billing", "shipping", "accounts", "technical", "sales", "returns"]
Urgency = Literal["low", "normal", "high"]
Kind = Literal["clear", "ambiguous", "legal", "unseen", "off_topic"]
Split = Literal["train", "held_out"]

TEAMS: Final[tuple[Team, ...]] = get_args(Team)
URGENCIES: Final[tuple[Urgency, ...]] = get_args(Urgency)
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

DEFAULT_MIX: Final[Mapping[Kind, float]] = {
    "clear": 0.64,
    "ambiguous": 0.14,
    "legal": 0.09,
    "unseen": 0.08,
    "off_topic": 0.05,
}
"""Share of each kind; need not sum to one."""

PROMPT_START: Final = "Ticket: "
PROMPT_END: Final = "\nTriage:"
ANSWER_START: Final = ' {"team": "'
ANSWER_MIDDLE: Final = '", "urgency": "'
ANSWER_END: Final = '"}'

MAX_WORDS: Final = 60
EXAMPLE_SEED: Final = 9
"""Seed of the tickets in `examples/ticket_triage/tickets.jsonl`."""
HELD_OUT_SHARE: Final = 0.25
"""Share of all texts, by hash, that never occurs in training."""


class Triage(BaseModel, frozen=True):
    """What the model answers: the team that should take the ticket, and how urgent it is."""

    team: Team
    urgency: Urgency


@dataclass(frozen=True)
class Ticket:
    """One message to the support desk, with the truth about it.

    `posterior` is the probability of each team given the text and sums to one; `team` is one draw from it. Urgency
    and legal risk are settled by the text. A decoy sounds legal and is not.
    """

    id: str
    text: str
    kind: Kind
    posterior: dict[str, float]
    team: Team
    urgency: Urgency
    legal_risk: bool
    decoy: bool = False


def prompt(text: str) -> str:
    """Return the prompt that asks for the triage of one text."""
    return f"{PROMPT_START}{text}{PROMPT_END}"


def answer(ticket: Ticket) -> str:
    """Return the answer expected after the prompt, with its leading space and without EOS."""
    return f"{ANSWER_START}{ticket.team}{ANSWER_MIDDLE}{ticket.urgency}{ANSWER_END}"


def tickets(n: int, *, seed: int, split: Split, mix: Mapping[Kind, float] = DEFAULT_MIX) -> list[Ticket]:
    """Return `n` tickets; the same seed, split and mix always give the same ones.

    Texts may repeat within a split (short ones do); no text, made-up name or off-topic topic is in both splits.
    """
    return [ticket for _, ticket in zip(range(n), stream(seed=seed, split=split, mix=mix), strict=False)]


def stream(*, seed: int, split: Split, mix: Mapping[Kind, float] = DEFAULT_MIX) -> Iterator[Ticket]:
    """Yield tickets without end; `tickets` is its beginning."""
    rng = random.Random(f"support desk/{split}/{seed}")
    kinds, weights = list(mix), list(mix.values())
    number = 0
    while True:
        kind = rng.choices(kinds, weights)[0]
        ticket = _ticket(rng, f"{split}-{seed}-{number}", kind, split)
        if len(ticket.text.split()) <= MAX_WORDS and split_of(ticket.text) == split:
            yield ticket
            number += 1


def reworded(n: int, *, seed: int) -> list[Ticket]:
    """Return clear tickets with a legal or a decoy sentence, in turns, in words that neither split uses.

    They measure whether a probe reads the concept or only knows its sentences.
    """
    rng = random.Random(f"support desk/reworded/{seed}")
    made = []
    for number in range(n):
        kind: Kind = "legal" if number % 2 else "clear"
        core, posterior = _core(rng, kind, "held_out")
        cue, urgency = _cue(rng, kind)
        text = _fill(rng, _dress(rng, core, [rng.choice(NEW_LEGAL if kind == "legal" else NEW_DECOYS)], cue))
        team = rng.choices(TEAMS, [posterior[team] for team in TEAMS])[0]
        legal_risk = kind == "legal"
        made.append(
            Ticket(f"reworded-{seed}-{number}", text, kind, posterior, team, urgency, legal_risk, not legal_risk)
        )
    return made


def split_of(text: str) -> Split:
    """Return the split that a text (or a made-up name) belongs to, by hash, case ignored."""
    fraction = int.from_bytes(hashlib.sha256(text.lower().encode()).digest()[:4]) / 2**32
    return "held_out" if fraction < HELD_OUT_SHARE else "train"


def bayes_accuracy(tickets: Sequence[Ticket]) -> float:
    """Return the expected accuracy, in 0..1, of whoever knows the posterior and answers the likeliest team."""
    return sum(max(ticket.posterior.values()) for ticket in tickets) / len(tickets)


def record(ticket: Ticket) -> dict[str, object]:
    """Return the ticket as the plain fields that a line of a ticket file holds."""
    return {
        "id": ticket.id,
        "text": ticket.text,
        "kind": ticket.kind,
        "team": ticket.team,
        "urgency": ticket.urgency,
        "legal_risk": ticket.legal_risk,
        "posterior": {team: round(share, 6) for team, share in ticket.posterior.items()},
    }


def _ticket(rng: random.Random, id: str, kind: Kind, split: Split) -> Ticket:
    decoy = False
    urgency: Urgency = "low"
    if kind == "off_topic":
        text = off_topic(rng, train=split == "train")
        posterior = _flat()
    else:
        core, posterior = _core(rng, kind, split)
        asides = [rng.choice(CONTEXT)] if rng.random() < 0.35 else []
        if kind == "legal":
            asides.append(rng.choice(LEGAL))
        elif rng.random() < 0.12:
            decoy = True
            asides.append(rng.choice(DECOYS))
        cue, urgency = _cue(rng, kind)
        text = _dress(rng, core, asides, cue)
    team = rng.choices(TEAMS, [posterior[team] for team in TEAMS])[0]
    return Ticket(id, _fill(rng, text), kind, posterior, team, urgency, kind == "legal", decoy)


def _core(rng: random.Random, kind: Kind, split: Split) -> tuple[str, dict[str, float]]:
    if kind == "unseen":
        return rng.choice(NAMED).replace("{name}", _made_up_name(rng, split)), _flat()
    if kind == "ambiguous":
        return _blend(rng)
    team = rng.choice(TEAMS)
    if rng.random() < 0.2:
        core = rng.choice(NAMED).replace("{name}", rng.choice(CATALOGUE[team]))
    else:
        core = rng.choice(ISSUES[team])
    return core, _posterior({team: 1.0})


def _blend(rng: random.Random) -> tuple[str, dict[str, float]]:
    if rng.random() < 0.4:
        text, shares = rng.choice(SHARED_ISSUES)
        return text, _posterior(shares)
    frame, weights = rng.choice(FRAMES)
    teams = rng.sample(TEAMS, len(weights))
    issues = dict(zip("abc", (rng.choice(ISSUES[team]) for team in teams), strict=False))
    for letter, issue in issues.items():
        frame = frame.replace("{" + letter + "}", issue)
    return frame, _posterior(dict(zip(teams, weights, strict=True)))


def _cue(rng: random.Random, kind: Kind) -> tuple[str, Urgency]:
    cues: list[tuple[str, Urgency]] = [("", "normal"), (rng.choice(HIGH_CUES), "high"), (rng.choice(LOW_CUES), "low")]
    cue, urgency = rng.choices(cues, [0.75, 0.1, 0.15] if kind == "legal" else [0.58, 0.22, 0.2])[0]
    return cue, "high" if kind == "legal" else urgency


def _dress(rng: random.Random, core: str, asides: list[str], cue: str) -> str:
    rng.shuffle(asides)
    parts = [core, *asides]
    if asides and rng.random() < 0.3:
        parts = [asides[0], core, *asides[1:]]
    if cue:
        parts.insert(rng.choice((0, len(parts), len(parts))), cue)
    if rng.random() < 0.5:
        parts.insert(0, rng.choice(OPENINGS))
    if rng.random() < 0.4:
        parts.append(rng.choice(CLOSINGS))
    return " ".join(parts)


def _fill(rng: random.Random, text: str) -> str:
    order = f"{rng.choice(('order', 'my order', 'order no.'))} {rng.randint(10000, 99999)}"
    slots = {
        "item": rng.choice(ITEMS),
        "amount": f"{rng.choice(('£', '$', '€', 'EUR '))}{rng.randint(5, 480)}{rng.choice(('', '.50', '.99'))}",
        "order": order,
        "Order": order.capitalize(),
        "number": str(rng.randint(100, 99999)),
        "count": str(rng.randint(2, 60)),
        "percent": str(rng.randint(3, 98)),
        "city": rng.choice(CITIES),
        "person": rng.choice(PEOPLE),
        "day": rng.choice(DAYS),
        "month": rng.choice(MONTHS),
    }
    for slot, value in slots.items():
        text = text.replace("{" + slot + "}", value)
    return _smudge(rng, text)


def _smudge(rng: random.Random, text: str) -> str:
    """Write as people do: sometimes all lower case, without full stops, or with two letters swapped."""
    if rng.random() < 0.1:
        text = text.lower()
    if rng.random() < 0.06:
        text = text.replace(".", "").replace(",", "")
    if rng.random() < 0.1:
        words = text.split(" ")
        # Names keep their spelling (they alone tell the team), and the first and last letter stay, as in real typos.
        long = [place for place, word in enumerate(words) if len(word) > 5 and word.isalpha() and word.islower()]
        known = {name.lower() for names in CATALOGUE.values() for name in names}
        if long and (word := words[place := rng.choice(long)]) not in known:
            at = rng.randint(1, len(word) - 3)
            words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        text = " ".join(words)
    return text


def _made_up_name(rng: random.Random, split: Split) -> str:
    known = {name for names in CATALOGUE.values() for name in names}
    while True:
        name = "".join(rng.choices(SYLLABLES, k=rng.choice((1, 2, 2)))).capitalize() + rng.choice(ENDINGS)
        if len(name) > 4 and name not in known and split_of(name) == split:
            return name


def _flat() -> dict[str, float]:
    return {team: 1 / len(TEAMS) for team in TEAMS}


def _posterior(shares: Mapping[str, float]) -> dict[str, float]:
    return {team: shares.get(team, 0.0) for team in TEAMS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write held-out tickets to standard output, one JSON object per line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--seed", type=int, default=EXAMPLE_SEED)
    parser.add_argument("--split", choices=get_args(Split), default="held_out")
    options = parser.parse_args(arguments)
    for ticket in tickets(options.n, seed=options.seed, split=options.split):
        sys.stdout.write(json.dumps(record(ticket), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
