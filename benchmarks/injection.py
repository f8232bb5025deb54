"""Measures what a prior state is worth to an action whose prompt lacks the text: a recall test with its controls."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from benchmarks._results import Row, arguments, report
from lens_training.support_desk.follow_ups import NEW_FOLLOW_UPS
from wonder.embedded import SUPPORT_DESK
from wonder.embedded.world import Ticket, prompt, tickets
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.errors import WonderError
from wonder.probes.metrics import auroc, estimate
from wonder.trace.capture import ThoughtCapture
from wonder.trace.injection import Injection
from wonder.trace.sampling import Sampling
from wonder.trace.schema import CompressedState, ThoughtTrace

# Shape suffixes: N tickets, R resamples.

SEED, CHOICE_SEED = 4711, 4712
FULL, QUICK = 800, 100
FULL_CHOICE, QUICK_CHOICE = 100, 20
"""Tickets on which the wording of the text and the steering are chosen; none of them is measured."""
RESAMPLES = 2000
READS = ThoughtCapture(run_concept_probes=["legal_risk"], top_alternatives=0)
SHORT = Sampling(max_new_tokens=24)
WORDINGS = (
    "{follow_up} {answer}",
    "{answer} {follow_up}",
    "{follow_up} It went to {team} and the urgency is {urgency}.",
    "This is about {team}. {follow_up}",
    "{team} {urgency} {follow_up}",
)
"""Ways to put the first answer into the second prompt; the best one is used."""
SOFT = Injection(kind="soft_prompt")

UNCLAIMED = ("a soft prompt", "text")
"""A state in place of the text: nobody should do that, so it is only recorded."""

Say = Callable[["First", str], str]


@dataclass(frozen=True)
class First:
    """What an earlier action made of one ticket."""

    ticket: Ticket
    answer: dict[str, str]
    state: CompressedState
    confidence: float


@dataclass(frozen=True)
class Second:
    """What the later action answered about each ticket."""

    team_N: torch.Tensor
    urgency_N: torch.Tensor
    confidence_N: torch.Tensor
    legal_N: torch.Tensor


def main() -> None:
    """Measure, then print the rows."""
    quick = arguments().quick
    engine = TraceEngine.load(SUPPORT_DESK, device="cpu", max_batch=64)
    chosen_on = shown(engine, tickets(QUICK_CHOICE if quick else FULL_CHOICE, seed=CHOICE_SEED, split="held_out"))
    firsts = shown(engine, tickets(QUICK if quick else FULL, seed=SEED, split="held_out"))
    wording = max(WORDINGS, key=lambda item: fields(ask(engine, chosen_on, said(item), None)))
    strengths = (0.3,) if quick else (0.2, 0.5, 1.0)
    steering = max(
        (
            Injection(kind="steering", layer=layer, strength=strength, mode=mode)
            for layer, strength, mode in product(range(engine.info.n_layers), strengths, ("generated", "all"))
        ),
        key=lambda item: fields(ask(engine, chosen_on, nothing, item)),
    )
    found = {
        "the ticket itself": ask(engine, firsts, lambda first, _: first.ticket.text, None),
        "nothing": ask(engine, firsts, nothing, None),
        "a soft prompt": ask(engine, firsts, nothing, SOFT),
        "steering": ask(engine, firsts, nothing, steering),
        "another ticket's soft prompt": ask(engine, firsts, nothing, SOFT, shuffled=True),
        "another ticket's steering": ask(engine, firsts, nothing, steering, shuffled=True),
        "text": ask(engine, firsts, said(wording), None),
        "text and a soft prompt": ask(engine, firsts, said(wording), SOFT),
        "text and steering": ask(engine, firsts, said(wording), steering),
        "text and another ticket's soft prompt": ask(engine, firsts, said(wording), SOFT, shuffled=True),
    }
    on = f"{len(firsts)} held-out tickets, follow-ups never trained with"
    notes = {
        "text": f"the first answer in words, {wording!r} (best of {len(WORDINGS)} on other tickets)",
        "steering": (
            f"layer {steering.layer}, strength {steering.strength}, mode {steering.mode} "
            "(best on other tickets, without text)"
        ),
    }
    rows = [row for name, second in found.items() for row in rows_of(name, second, firsts, on, notes.get(name, ""))]
    rows.append(
        Row(
            "team accuracy of the first answer, kept and not asked again",
            interval(torch.tensor([first.answer["team"] == first.ticket.team for first in firsts]).double())[0],
            "",
            "",
            f"what a workflow has in ctx.outputs without any second model call; {on}",
        )
    )
    rows += gains(found, on)
    report("injection", rows)


def shown(engine: TraceEngine, asked: Sequence[Ticket]) -> list[First]:
    """Have tickets answered, and keep what a workflow would have of it."""
    capture = READS.model_copy(update={"compress_state": True})
    requests = [Request(prompt=prompt(ticket.text), capture=capture, sampling=SHORT) for ticket in asked]
    found = []
    for ticket, (text, trace) in zip(asked, answers(engine, requests), strict=True):
        assert trace.compressed_state is not None
        found.append(First(ticket, parsed(text), trace.compressed_state, trace.overall_confidence or 0.0))
    return found


def nothing(_first: First, follow_up: str) -> str:
    """A second message that says nothing of the first."""
    return follow_up


def said(wording: str) -> Say:
    """A second message with the words of the first answer."""

    def say(first: First, follow_up: str) -> str:
        return wording.format(follow_up=follow_up, answer=json.dumps(first.answer), **first.answer)

    return say


def ask(
    engine: TraceEngine, firsts: Sequence[First], say: Say, inject: Injection | None, *, shuffled: bool = False
) -> Second:
    """Ask about each ticket again, in a prompt that lacks it.

    Args:
        engine: With the embedded model.
        firsts: The earlier answers.
        say: What the second prompt says.
        inject: What is done with the earlier state.
        shuffled: Whether everybody gets somebody else's state.
    """
    rng = random.Random(SEED)
    capture = READS.model_copy(update={"inject": inject})
    away = len(firsts) // 2 if shuffled else 0
    requests = [
        Request(
            prompt=prompt(say(first, rng.choice(NEW_FOLLOW_UPS))),
            capture=capture,
            sampling=SHORT,
            prior_state=None if inject is None else firsts[(at + away) % len(firsts)].state,
        )
        for at, first in enumerate(firsts)
    ]
    told = [(parsed(text), trace) for text, trace in answers(engine, requests)]
    return Second(
        torch.tensor([answer["team"] == first.ticket.team for first, (answer, _) in zip(firsts, told, strict=True)]),
        torch.tensor(
            [answer["urgency"] == first.ticket.urgency for first, (answer, _) in zip(firsts, told, strict=True)]
        ),
        torch.tensor([trace.overall_confidence or 0.0 for _, trace in told]),
        torch.tensor([trace.active_concepts.get("legal_risk", 0.0) for _, trace in told]),
    )


def answers(engine: TraceEngine, requests: Sequence[Request]) -> list[tuple[str, ThoughtTrace]]:
    """Text and trace of each."""
    found = []
    for message in engine.generate(requests):
        if isinstance(message, WonderError):
            raise message
        assert message.thought_trace is not None
        found.append((message.text, message.thought_trace))
    return found


def parsed(text: str) -> dict[str, str]:
    """The answer; one that is malformed is no team's."""
    try:
        value: Any = json.loads(text)
        return {"team": str(value["team"]), "urgency": str(value["urgency"])}
    except (ValueError, KeyError, TypeError):
        return {"team": "", "urgency": ""}


def fields(second: Second) -> float:
    """Mean accuracy of the two fields, by which wording and steering are chosen."""
    return float((second.team_N.double() + second.urgency_N.double()).mean()) / 2


def interval(values_N: torch.Tensor) -> tuple[float, float, float]:
    """Mean and its bootstrap 95 % interval over tickets."""
    generator = torch.Generator().manual_seed(1)
    draws_RN = torch.randint(len(values_N), (RESAMPLES, len(values_N)), generator=generator)
    means_R = values_N[draws_RN].mean(1)
    low, high = torch.quantile(means_R, torch.tensor([0.025, 0.975], dtype=means_R.dtype)).tolist()
    return float(values_N.mean()), low, high


def rows_of(name: str, second: Second, firsts: Sequence[First], on: str, note: str) -> list[Row]:
    """The figures of one way to hand something over."""
    legal_N = torch.tensor([first.ticket.legal_risk for first in firsts])
    before_N = torch.tensor([first.confidence for first in firsts])
    how = f"second prompt given {name}{f', {note}' if note else ''}; {on}"
    mean, low, high = interval(second.team_N.double())
    high_mean, high_low, high_high = interval(second.urgency_N.double())
    legal = estimate(auroc, second.legal_N.double(), legal_N)
    gap, gap_low, gap_high = interval((second.confidence_N - before_N).abs().double())
    return [
        Row(f"team accuracy given {name}", mean, "", "", f"{how}; 95 % interval {low:.3f} to {high:.3f}"),
        Row(
            f"urgency accuracy given {name}",
            high_mean,
            "",
            "",
            f"{how}; 95 % interval {high_low:.3f} to {high_high:.3f}; a legal risk is urgent",
        ),
        Row(
            f"AUROC of the legal_risk probe given {name}",
            legal.value,
            "",
            "",
            f"read in the second action; {how}, {int(legal_N.sum())} of them legal; 95 % interval {legal.low:.3f} to "
            f"{legal.high:.3f}",
        ),
        Row(
            f"change of the confidence given {name}",
            gap,
            "",
            "",
            f"mean |confidence of the second answer - of the first|; {how}; 95 % interval {gap_low:.3f} to "
            f"{gap_high:.3f}",
        ),
    ]


def gains(found: dict[str, Second], on: str) -> list[Row]:
    """What counts: paired differences in team accuracy, a win only where the whole interval lies above 0."""
    pairs = [
        ("a soft prompt", "nothing"),
        ("a soft prompt", "another ticket's soft prompt"),
        ("steering", "nothing"),
        ("steering", "another ticket's steering"),
        ("text and a soft prompt", "text"),
        ("text and a soft prompt", "text and another ticket's soft prompt"),
        ("text and steering", "text"),
        ("a soft prompt", "text"),
    ]
    rows = []
    for better, base in pairs:
        mean, low, high = interval(found[better].team_N.double() - found[base].team_N.double())
        rows.append(
            Row(
                f"team accuracy gained by {better} over {base}, lower end",
                low,
                "",
                "" if (better, base) == UNCLAIMED else ">= 0.001",
                f"paired difference {mean:+.3f}, bootstrap 95 % interval {low:+.3f} to {high:+.3f}; {on}",
            )
        )
    return rows


if __name__ == "__main__":
    main()
