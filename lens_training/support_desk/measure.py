"""Measures the embedded model against the truth of its world: accuracy, calibration, and how errors are caught."""

from collections.abc import Sequence

import torch
from pydantic import BaseModel
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lens_training.support_desk.answers import read_answers
from wonder.embedded.world import KINDS, TEAMS, Ticket, bayes_accuracy
from wonder.learning.scoring import ece
from wonder.probes.metrics import auroc

# Shape suffixes: N tickets, C team.

REVIEW_BELOW = 0.7
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class ReliabilityBin(BaseModel, frozen=True):
    """Answers whose confidence lies in one tenth of the scale: said and done."""

    confidence: float
    accuracy: float
    tickets: int


class KindFigures(BaseModel, frozen=True):
    """Figures of the tickets of one kind."""

    tickets: int
    accuracy: float
    """Share of greedy answers with both fields right."""
    bayes_accuracy: float
    """The most that anybody can expect, knowing the posterior."""
    mean_abs_error: float
    """Mean over tickets and teams of |model's probability - posterior|."""
    kl_nats: float
    """Mean KL(posterior ‖ model) over teams."""
    confidence_quantiles: dict[str, float]


class Figures(BaseModel, frozen=True):
    """All figures of one evaluation."""

    tickets: int
    accuracy: float
    bayes_accuracy: float
    well_formed: float
    """Share of greedy answers that are exactly the JSON asked for, followed by EOS."""
    mean_abs_error: float
    kl_nats: float
    ece: float
    """Expected calibration error of the confidence, 15 bins of equal count."""
    brier: float
    auroc: float
    """Chance that a right answer has more confidence than a wrong one."""
    errors_caught: float
    """Share of wrong answers whose confidence is below .7."""
    reviewed: float
    """Share of all answers whose confidence is below .7."""
    risk_unreviewed: float
    """Share of wrong answers among those not reviewed."""
    reliability: list[ReliabilityBin]
    kinds: dict[str, KindFigures]


def measure(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tickets: Sequence[Ticket]) -> Figures:
    """Measure the model on tickets; they should be held out and contain every kind."""
    answers = read_answers(model, tokenizer, [ticket.text for ticket in tickets])
    confidence_N, correct_N = answers.confidence().double(), answers.correct(tickets)
    reviewed_N = confidence_N < REVIEW_BELOW
    posterior_NC = torch.tensor([[ticket.posterior[team] for team in TEAMS] for ticket in tickets])
    kinds = {}
    for kind in KINDS:
        places = torch.tensor([place for place, ticket in enumerate(tickets) if ticket.kind == kind])
        quantiles = confidence_N[places].quantile(torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
        kinds[kind] = KindFigures(
            tickets=len(places),
            accuracy=_share(correct_N[places]),
            bayes_accuracy=bayes_accuracy([tickets[place] for place in places.tolist()]),
            mean_abs_error=_mean_abs_error(answers.team_NC[places], posterior_NC[places]),
            kl_nats=_kl_nats(answers.team_NC[places], posterior_NC[places]),
            confidence_quantiles={f"{q:g}": value for q, value in zip(QUANTILES, quantiles, strict=True)},
        )
    return Figures(
        tickets=len(tickets),
        accuracy=_share(correct_N),
        bayes_accuracy=bayes_accuracy(tickets),
        well_formed=_share(answers.well_formed_N),
        mean_abs_error=_mean_abs_error(answers.team_NC, posterior_NC),
        kl_nats=_kl_nats(answers.team_NC, posterior_NC),
        ece=ece(confidence_N.tolist(), correct_N.tolist(), [1.0] * len(tickets)),
        brier=(confidence_N - correct_N.double()).square().mean().item(),
        auroc=auroc(confidence_N, correct_N),
        errors_caught=_share(reviewed_N[~correct_N]),
        reviewed=_share(reviewed_N),
        risk_unreviewed=_share(~correct_N[~reviewed_N]),
        reliability=_reliability(confidence_N, correct_N),
        kinds=kinds,
    )


def _reliability(confidence_N: Tensor, correct_N: Tensor, bins: int = 10) -> list[ReliabilityBin]:
    bin_N = (confidence_N * bins).long().clamp_max(bins - 1)
    rows = []
    for place in range(bins):
        inside = bin_N == place
        if inside.any():
            mean = confidence_N[inside].mean().item()
            rows.append(ReliabilityBin(confidence=mean, accuracy=_share(correct_N[inside]), tickets=int(inside.sum())))
    return rows


def _mean_abs_error(model_NC: Tensor, posterior_NC: Tensor) -> float:
    return (model_NC - posterior_NC).abs().mean().item()


def _kl_nats(model_NC: Tensor, posterior_NC: Tensor) -> float:
    ratio_NC = posterior_NC.clamp_min(1e-12).log() - model_NC.clamp_min(1e-12).log()
    return (posterior_NC * ratio_NC).sum(1).mean().item()


def _share(flags_N: Tensor) -> float:
    return flags_N.float().mean().item()
