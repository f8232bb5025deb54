"""What a reader of an evaluation has to know before believing it, in sentences; torch-free."""

from collections.abc import Iterator
from typing import Final

from lens_training.evaluate.record import CLAIM_ROWS, DISTINCT_ROWS, SHUFFLED, Evaluation

FEW_DOCUMENTS: Final = 100
APART: Final = 0.15
"""By which the shuffled figure may miss minus the lens's own, as a share of it."""


def caveats(found: Evaluation) -> list[str]:
    """The gravest first."""
    return list(_caveats(found))


def _caveats(found: Evaluation) -> Iterator[str]:
    test, own = found.self_test, found.greedy.fve
    if not test.passed:
        yield (
            f"The replacement failed its self-test: an activation in its own place moves the next token by "
            f"{test.kl_max_nats:.3g} nats, and {test.tolerance_nats:.3g} are allowed. No KL here can be trusted."
        )
    if found.step < found.steps:
        yield f"Training has done {found.step:,} of {found.steps:,} steps."
    if found.rows < CLAIM_ROWS:
        yield (
            f"{found.rows:,} rows were measured. Claims about the fraction of variance explained want {CLAIM_ROWS:,}: "
            "evaluations of one lens on less have ranged from 0.62 to 0.87."
        )
    if found.documents < FEW_DOCUMENTS:
        yield f"The rows come from {found.documents} documents: intervals over so few are too narrow to be trusted."
    shuffled = found.line(SHUFFLED)
    if shuffled is not None and own.value > 0 and abs(shuffled.fve.value + own.value) > APART * own.value:
        why = (
            "the encoder stays close to the mean and hardly uses the text"
            if shuffled.fve.value > -own.value
            else "the encoder goes further from the mean than its text warrants"
        )
        yield (
            f"Shuffled texts give {shuffled.fve.value:.3f}, and an encoder that reads the mean of what a text may "
            f"stand for would give {-own.value:.3f}: {why}."
        )
    if own.low <= 0:
        yield f"The lens is not shown to explain more than the mean activation does: {own}."
    for name, what in (
        ("true_tail_trained", "an encoder trained on the true words"),
        ("true_tail_untrained", "the target itself, given the true words"),
        ("ridge_8", "least squares on the true words"),
        ("quantised", "a linear bottleneck of as many bits"),
        ("clustered", "k-means of as many bits"),
    ):
        line = found.line(name)
        if line is not None and line.ahead is not None and line.ahead.low <= 0:
            yield (
                f"The lens is not ahead of {what}: {own.value:.3f} against {line.fve.value:.3f}, a difference of "
                f"{line.ahead.value:+.3f} [{line.ahead.low:+.3f}, {line.ahead.high:+.3f}]."
            )
    said = found.greedy.nll_nats
    if said is not None and said.value > (found.texts.nll_tail_nats.value + found.texts.nll_random_nats.value) / 2:
        yield (
            f"The texts are closer to random words than to real ones: {said.value:.2f} nats per token, true words "
            f"{found.texts.nll_tail_nats.value:.2f}, random ones {found.texts.nll_random_nats.value:.2f}. This is "
            "a code that the encoder knows, not language."
        )
    share = found.greedy.distinct_share
    if share is not None and share < found.texts.distinct_tail_share / 2:
        yield (
            f"Only {share:.0%} of {min(found.rows, DISTINCT_ROWS)} texts are different from each other, and "
            f"{found.texts.distinct_tail_share:.0%} of the true ones: the decoder says the same of many activations."
        )
