"""Measures the model on wordings that training never had: held-out templates, and tickets in a person's own words."""

from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lens_training.support_desk.answers import Answers, read_answers
from lens_training.support_desk.free_text import OWN_HARMLESS, OWN_LEGAL, OWN_WORDS, STRANGE
from lens_training.support_desk.measure import REVIEW_BELOW
from lens_training.support_desk.states import prompt_states
from wonder.embedded.world import TEAMS, Team, new_wordings, reworded
from wonder.probes.bundle import ProbeBundle
from wonder.probes.metrics import auroc

# Shape suffixes: N tickets.

NEW_TICKETS, REWORDED_TICKETS = 1200, 1000


class TeamFigures(BaseModel, frozen=True):
    """How well the team is told on tickets whose team is plain to a person; urgency is left out."""

    tickets: int
    accuracy: float
    mean_confidence: float
    """Mean of the probability of both values, as everywhere."""
    sure: float
    """Share of answers with a confidence of at least .7."""
    error_when_sure: float
    """Share of wrong teams among those; 0 when there are none."""
    auroc: float
    """Chance that a right answer has more confidence than a wrong one; 1 when none is wrong."""


class WordingFigures(BaseModel, frozen=True):
    """Figures on wordings that training never had."""

    new_wordings: TeamFigures
    """Tickets of the world whose template no split uses."""
    own_words: TeamFigures
    """Hand-written tickets."""
    own_words_by_team: dict[str, float]
    """Accuracy on the hand-written tickets of each team."""
    strange: int
    strange_sure: float
    """Share of hand-written texts that belong to no team and get a confidence of at least .7."""
    reworded_auroc: float
    """The probe's AUROC on legal sentences against decoys, both in templates that no split uses."""
    own_legal: int
    own_harmless: int
    own_legal_auroc: float
    """The probe's AUROC on hand-written legal tickets against all hand-written others."""
    own_legal_recall_at_080: float
    own_harmless_over_080: float
    """Share of hand-written tickets that only sound legal whose calibrated probability exceeds .8."""
    own_words_over_080: float
    """The same for hand-written tickets that do not even sound legal."""


def measure_wordings(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    probe: ProbeBundle,
    *,
    seed: int,
    new_tickets: int = NEW_TICKETS,
    reworded_tickets: int = REWORDED_TICKETS,
) -> WordingFigures:
    """Measure the model and its probe on new wordings of the world and on the hand-written tickets."""

    def risk(texts: Sequence[str]) -> Tensor:
        states_ND = prompt_states(model, tokenizer, texts)[probe.manifest.hook_point]
        return probe.probability(states_ND @ probe.weight_D + probe.bias)

    new = new_wordings(new_tickets, seed=seed)
    own: list[tuple[str, Team]] = [(text, team) for team, texts in OWN_WORDS.items() for text in texts]
    own_answers = read_answers(model, tokenizer, [text for text, _ in own])
    legal = reworded(reworded_tickets, seed=seed)
    legal_N, harmless_N, own_N = risk(OWN_LEGAL), risk(OWN_HARMLESS), risk([text for text, _ in own])
    others_N = torch.cat([harmless_N, own_N])
    own_labels_N = torch.arange(len(legal_N) + len(others_N)) < len(legal_N)
    return WordingFigures(
        new_wordings=_figures(
            read_answers(model, tokenizer, [ticket.text for ticket in new]), [ticket.team for ticket in new]
        ),
        own_words=_figures(own_answers, [team for _, team in own]),
        own_words_by_team=_by_team(own_answers, OWN_WORDS),
        strange=len(STRANGE),
        strange_sure=_share(read_answers(model, tokenizer, STRANGE).confidence() >= REVIEW_BELOW),
        reworded_auroc=auroc(
            risk([ticket.text for ticket in legal]), torch.tensor([ticket.legal_risk for ticket in legal])
        ),
        own_legal=len(legal_N),
        own_harmless=len(harmless_N),
        own_legal_auroc=auroc(torch.cat([legal_N, others_N]), own_labels_N),
        own_legal_recall_at_080=_share(legal_N > 0.8),
        own_harmless_over_080=_share(harmless_N > 0.8),
        own_words_over_080=_share(own_N > 0.8),
    )


def _figures(answers: Answers, teams: Sequence[Team]) -> TeamFigures:
    confidence_N, right_N = answers.confidence(), _right(answers, teams)
    sure_N = confidence_N >= REVIEW_BELOW
    return TeamFigures(
        tickets=len(teams),
        accuracy=_share(right_N),
        mean_confidence=confidence_N.mean().item(),
        sure=_share(sure_N),
        error_when_sure=_share(~right_N[sure_N]) if sure_N.any() else 0.0,
        auroc=1.0 if right_N.all() else auroc(confidence_N, right_N),
    )


def _by_team(answers: Answers, texts: Mapping[Team, Sequence[str]]) -> dict[str, float]:
    teams = [team for team in texts for _ in texts[team]]
    right_N = _right(answers, teams)
    return {team: _share(right_N[torch.tensor([other == team for other in teams])]) for team in texts}


def _right(answers: Answers, teams: Sequence[Team]) -> Tensor:
    return answers.team_NC.argmax(1) == torch.tensor([TEAMS.index(team) for team in teams])


def _share(flags_N: Tensor) -> float:
    return flags_N.float().mean().item()
