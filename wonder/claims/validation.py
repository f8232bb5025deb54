"""`ClaimValidation`: how a claim did on one model, on examples whose truth is known."""

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from pydantic import Field

from wonder.errors import DefinitionError
from wonder.trace.schema import ThoughtTrace, Verdict
from wonder.wire import NonNegative, Probability, WireModel

LEAST: Final = 60
"""Examples of each kind: of 60 without an error, the rate is below 5 % with 95 % confidence (rule of three)."""
DRAWS: Final = 300
"""Bootstrap draws for the interval of the AUROC."""


class Evidence(Protocol):
    """What is validated; `wonder.claims.claim.Claim` is it."""

    @property
    def name(self) -> str: ...

    @property
    def score(self) -> str | None: ...

    @property
    def digest(self) -> str: ...

    def shown(self, trace: ThoughtTrace, /) -> Verdict: ...

    def score_of(self, trace: ThoughtTrace, /) -> float | None: ...


class ClaimValidation(WireModel):
    """The record on which a claim's verdicts rest."""

    claim: str
    """Digest of the claim's evidence."""
    model: str
    model_fingerprint: str
    dataset: str
    """What the examples were, and how their truth is known."""
    positives: int = Field(ge=0)
    """Examples where the claim holds."""
    negatives: int = Field(ge=0)
    """Examples where it does not."""
    support: Probability
    """Share of the positives that was called supported."""
    false_support: Probability
    """Share of the negatives that was called supported."""
    refutation: Probability
    """Share of the negatives that was called refuted."""
    false_refutation: Probability
    """Share of the positives that was called refuted."""
    unknown: NonNegative = 0
    """Examples without a score."""
    auroc: Probability | None = None
    """Of the claim's score; None without one."""
    auroc_low: Probability | None = None
    """2.5 % quantile over bootstrap draws."""
    auroc_high: Probability | None = None

    @property
    def id(self) -> str:
        """16 hex digits of the record."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def too_small(self) -> str:
        """What is missing for the rates to mean anything; empty: nothing."""
        lacking = [
            f"{count} {what} of at least {LEAST}"
            for what, count in (("where it holds", self.positives), ("where it does not", self.negatives))
            if count < LEAST
        ]
        return ", ".join(lacking)


def validate(claim: Evidence, examples: Iterable[tuple[ThoughtTrace, bool]], dataset: str) -> ClaimValidation:
    """Measure a claim on examples whose truth is known.

    Args:
        claim: Whose evidence is looked at.
        examples: A trace, and whether the claim holds of it; all of one model.
        dataset: What they are, for the record.

    Raises:
        DefinitionError: There is no example of one kind, or they come from several models.
    """
    pairs = list(examples)
    models = {(trace.model, trace.model_fingerprint) for trace, _ in pairs}
    truths = [truth for _, truth in pairs]
    if not any(truths) or all(truths):
        raise DefinitionError(
            f"claim {claim.name!r}: {len(pairs)} examples, {sum(truths)} of them true: both kinds are needed, "
            f"{LEAST} of each at least"
        )
    if len(models) > 1:
        names = ", ".join(sorted(f"{name} ({print_[:12]})" for name, print_ in models))
        raise DefinitionError(f"claim {claim.name!r}: the examples come from several models ({names}): validate each")
    ((model, fingerprint),) = models
    shown = [claim.shown(trace) for trace, _ in pairs]
    scores = [claim.score_of(trace) for trace, _ in pairs]
    known = [(score, truth) for score, truth in zip(scores, truths, strict=True) if score is not None]
    interval = _auroc(known) if claim.score is not None else (None, None, None)

    def share(verdict: Verdict, truth: bool) -> float:
        of_kind = [word for word, holds in zip(shown, truths, strict=True) if holds is truth]
        return of_kind.count(verdict) / len(of_kind)

    return ClaimValidation(
        claim=claim.digest,
        model=model,
        model_fingerprint=fingerprint,
        dataset=dataset,
        positives=sum(truths),
        negatives=len(truths) - sum(truths),
        support=share("supported", True),
        false_support=share("supported", False),
        refutation=share("refuted", False),
        false_refutation=share("refuted", True),
        unknown=len(pairs) - len(known) if claim.score is not None else 0,
        auroc=interval[0],
        auroc_low=interval[1],
        auroc_high=interval[2],
    )


def _auroc(pairs: Sequence[tuple[float, bool]]) -> tuple[float | None, float | None, float | None]:
    """The chance that a true example outscores a false one, ties counting half, with its 95 % interval."""
    true = [score for score, holds in pairs if holds]
    false = [score for score, holds in pairs if not holds]
    if not true or not false:
        return None, None, None
    chance = random.Random(0)  # a bootstrap, the same one at every run
    draws = sorted(
        _chance_of_order(chance.choices(true, k=len(true)), chance.choices(false, k=len(false))) for _ in range(DRAWS)
    )
    return _chance_of_order(true, false), draws[round(0.025 * DRAWS)], draws[round(0.975 * DRAWS) - 1]


def _chance_of_order(true: Sequence[float], false: Sequence[float]) -> float:
    ranked = sorted([(score, 1) for score in true] + [(score, 0) for score in false])
    wins = below = at = 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        ups = sum(kind for _, kind in ranked[at:end])
        downs = end - at - ups
        wins += ups * below * 2 + ups * downs
        below += downs
        at = end
    return wins / (2 * len(true) * len(false))
