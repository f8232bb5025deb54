"""The support-desk world: a seeded source of tickets whose true posterior over teams is known."""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from pydantic import BaseModel

from wonder.embedded.blends import FRAMES, SHARED_ISSUES
from wonder.embedded.foreign import FREE_NOUNS, embroider, plain_statement, unknown_wording
from wonder.embedded.grammar import expand
from wonder.embedded.legal import DECOY_WORDINGS, LEGAL_WORDINGS, NEW_DECOYS, NEW_LEGAL
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
    OPENINGS,
)
from wonder.embedded.slots import CITIES, DAYS, ENDINGS, ITEMS, MONTHS, PEOPLE, SYLLABLES
from wonder.embedded.smudge import smudge
from wonder.embedded.splits import Split, split_of
from wonder.embedded.wordings import NEW_WORDINGS, WORDINGS

Team = Literal["billing", "shipping", "accounts", "technical", "sales", "returns"]
Urgency = Literal["low", "normal", "high"]
Kind = Literal["clear", "ambiguous", "legal", "unseen", "off_topic"]

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
EXAMPLE_SEED: Final = 4
"""Of the first forty, the draw of 60 tickets with some of every kind whose shares of caught errors and of reviewed
tickets come closest to those measured on thousands; others lie well above and below."""


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


def stream(
    *, seed: int, split: Split, mix: Mapping[Kind, float] = DEFAULT_MIX, shouted: float = 0.0
) -> Iterator[Ticket]:
    """Yield tickets without end; `tickets` is its beginning, and about the share `shouted` is all in capitals."""
    rng = random.Random(f"support desk/{split}/{seed}")
    kinds, weights = list(mix), list(mix.values())
    number = 0
    while True:
        kind = rng.choices(kinds, weights)[0]
        ticket = _ticket(rng, f"{split}-{seed}-{number}", kind, split, shouted)
        if len(ticket.text.split()) <= MAX_WORDS and split_of(ticket.text) == split:
            yield ticket
            number += 1


def reworded(n: int, *, seed: int) -> list[Ticket]:
    """Return tickets with a legal or a decoy sentence, in turns, in sentences that neither split uses.

    They measure whether a probe reads the concept or only knows its sentences.
    """
    rng = random.Random(f"support desk/reworded/{seed}")
    made = []
    for number in range(n):
        kind: Kind = "legal" if number % 2 else "clear"
        core, posterior = _core(rng, kind, "held_out")
        aside = expand(rng, rng.choice(NEW_LEGAL if kind == "legal" else NEW_DECOYS))
        made.append(_finish(rng, f"reworded-{seed}-{number}", kind, "held_out", core, posterior, [aside]))
    return made


def new_wordings(n: int, *, seed: int) -> list[Ticket]:
    """Return clear tickets, team by team, whose wording neither split uses; nothing else in them tells the team."""
    rng = random.Random(f"support desk/new wordings/{seed}")
    made = []
    for number in range(n):
        team = TEAMS[number % len(TEAMS)]
        core = expand(rng, rng.choice(NEW_WORDINGS[team]))
        made.append(_finish(rng, f"new-{seed}-{number}", "clear", "held_out", core, _posterior({team: 1.0}), []))
    return made


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


def _ticket(rng: random.Random, id: str, kind: Kind, split: Split, shouted: float) -> Ticket:
    if kind == "off_topic":
        posterior = _flat()
        text = _fill(rng, off_topic(rng, split), split, shouted)
        return Ticket(id, text, kind, posterior, _draw(rng, posterior), "low", legal_risk=False)
    core, posterior = _core(rng, kind, split)
    asides = [rng.choice(CONTEXT)] if rng.random() < 0.2 else []
    if rng.random() < 0.12:
        asides.append(plain_statement(rng, split))
    decoy = kind != "legal" and rng.random() < 0.12
    if kind == "legal":
        asides.append(_told(rng, expand(rng, rng.choice(LEGAL if rng.random() < 0.3 else LEGAL_WORDINGS)), split))
    elif decoy:
        asides.append(expand(rng, rng.choice(DECOYS if rng.random() < 0.4 else DECOY_WORDINGS)))
    return _finish(rng, id, kind, split, core, posterior, asides, decoy=decoy, shouted=shouted)


def _finish(
    rng: random.Random,
    id: str,
    kind: Kind,
    split: Split,
    core: str,
    posterior: dict[str, float],
    asides: list[str],
    *,
    decoy: bool | None = None,
    shouted: float = 0.0,
) -> Ticket:
    cue, urgency = _cue(rng, kind)
    text = _fill(rng, _dress(rng, core, asides, expand(rng, cue) if cue else ""), split, shouted)
    sounds_legal = bool(asides) and kind != "legal" if decoy is None else decoy
    return Ticket(id, text, kind, posterior, _draw(rng, posterior), urgency, kind == "legal", sounds_legal)


def _core(rng: random.Random, kind: Kind, split: Split) -> tuple[str, dict[str, float]]:
    if kind == "unseen":
        if rng.random() < 0.5:
            sentences = (_told(rng, unknown_wording(rng, split), split) for _ in range(rng.choice((1, 1, 2))))
            return " ".join(sentences), _flat()
        return rng.choice(NAMED).replace("{name}", _made_up_name(rng, split)), _flat()
    if kind == "ambiguous":
        return _blend(rng, split)
    if kind == "legal" and rng.random() < 0.15:
        # Nothing but the threat, or a matter that nobody can place: it is urgent, and any team may have to take it.
        return rng.choice(("", unknown_wording(rng, split))), _flat()
    team = rng.choice(TEAMS)
    if rng.random() < 0.15:
        core = rng.choice(NAMED).replace("{name}", rng.choice(CATALOGUE[team]))
    else:
        core = _issue(rng, team, split)
    return core, _posterior({team: 1.0})


def _issue(rng: random.Random, team: Team, split: Split) -> str:
    return _told(rng, expand(rng, rng.choice(ISSUES[team] if rng.random() < 0.2 else WORDINGS[team])), split)


def _told(rng: random.Random, sentence: str, split: Split) -> str:
    return embroider(rng, sentence, split) if rng.random() < 0.25 else sentence


def _blend(rng: random.Random, split: Split) -> tuple[str, dict[str, float]]:
    if rng.random() < 0.4:
        text, shares = rng.choice(SHARED_ISSUES)
        return _told(rng, expand(rng, text), split), _posterior(shares)
    frame, weights = rng.choice(FRAMES)
    teams = rng.sample(TEAMS, len(weights))
    issues = dict(zip("abc", (_issue(rng, team, split) for team in teams), strict=False))
    for letter, issue in issues.items():
        frame = frame.replace("{" + letter + "}", issue)
    return frame, _posterior(dict(zip(teams, weights, strict=True)))


def _cue(rng: random.Random, kind: Kind) -> tuple[str, Urgency]:
    cues: list[tuple[str, Urgency]] = [("", "normal"), (rng.choice(HIGH_CUES), "high"), (rng.choice(LOW_CUES), "low")]
    cue, urgency = rng.choices(cues, [0.75, 0.1, 0.15] if kind == "legal" else [0.58, 0.22, 0.2])[0]
    return cue, "high" if kind == "legal" else urgency


def _draw(rng: random.Random, posterior: Mapping[str, float]) -> Team:
    return rng.choices(TEAMS, [posterior[team] for team in TEAMS])[0]


def _dress(rng: random.Random, core: str, asides: list[str], cue: str) -> str:
    rng.shuffle(asides)
    parts = [core, *asides]
    if asides and rng.random() < 0.3:
        parts = [asides[0], core, *asides[1:]]
    if cue:
        parts.insert(rng.choice((0, len(parts), len(parts))), cue)
    if rng.random() < 0.3:
        parts.insert(0, rng.choice(OPENINGS))
    if rng.random() < 0.25:
        parts.append(rng.choice(CLOSINGS))
    return " ".join(part for part in parts if part)


def _fill(rng: random.Random, text: str, split: Split, shouted: float) -> str:
    order = f"{rng.choice(('order', 'my order', 'order no.'))} {rng.randint(10000, 99999)}"
    slots = {
        "item": rng.choice(FREE_NOUNS[split] if rng.random() < 0.2 else ITEMS),
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
    return smudge(rng, text, shouted=shouted)


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
