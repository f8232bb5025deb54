"""`gate`: whether a lens has reached what its specification asks, in sentences with numbers; pure and torch-free."""

from lens_training.evaluate.record import SHUFFLED, Evaluation, Figure
from lens_training.run_spec import GateSpec
from wonder.wire import WireRecord


class Standing(WireRecord):
    """What the gate has to know of the lens in force."""

    name: str
    fve: float
    rows_digest: str = ""
    """Of the states it was measured on; empty: not known."""
    fingerprint: str = ""
    layer: int | None = None


class Verdict(WireRecord):
    """Whether a lens may be registered."""

    passed: bool
    reasons: list[str]
    """A sentence per bar, those that were missed first."""


def standing(evaluation: Evaluation) -> Standing:
    """An evaluated lens as the one in force."""
    return Standing(
        name=f"{evaluation.run} at step {evaluation.step}",
        fve=evaluation.greedy.fve.value,
        rows_digest=evaluation.rows_digest,
        fingerprint=evaluation.fingerprint,
        layer=evaluation.layer,
    )


def gate(evaluation: Evaluation, spec: GateSpec, current: Evaluation | Standing | None = None) -> Verdict:
    """Hold an evaluation against the bars.

    A minimum is reached when the low end of the 95 % interval reaches it, a maximum when the high end stays under it: a
    lens that was measured on few rows has to be better by that much.

    Args:
        evaluation: Of the lens that asks to be registered.
        spec: The bars.
        current: The lens in force; None: there is none.
    """
    told = [_self_test(evaluation)]
    told += _minimum("FVE", evaluation.greedy.fve, "minimum_fve", spec.minimum_fve)
    told += _minimum("KL recovered", evaluation.greedy.kl_recovered, "minimum_kl_recovered", spec.minimum_kl_recovered)
    told += _shuffled(evaluation, spec.maximum_shuffled_fve)
    if spec.beat_current and current is not None:
        told.append(_current(evaluation, standing(current) if isinstance(current, Evaluation) else current))
    reasons = [sentence for reached, sentence in sorted(told, key=lambda item: item[0])]
    return Verdict(passed=all(reached for reached, _ in told), reasons=reasons)


def _self_test(evaluation: Evaluation) -> tuple[bool, str]:
    test = evaluation.self_test
    told = f"putting an activation in its own place changes the next token by {test.kl_max_nats:.2g} nats at most"
    if test.passed:
        return True, f"{told}, within {test.tolerance_nats:.2g}"
    return False, f"{told}, more than {test.tolerance_nats:.2g}: no KL of this evaluation can be trusted"


def _minimum(what: str, found: Figure | None, setting: str, bar: float | None) -> list[tuple[bool, str]]:
    if bar is None:
        return []
    if found is None:
        return [(False, f"{what} was not measured, and {setting} asks for {bar:g}")]
    if found.low >= bar:
        return [(True, f"{what} {found} reaches {setting} {bar:g} with its whole interval")]
    if found.value >= bar:
        return [(False, f"{what} {found} reaches {setting} {bar:g}, and its interval does not: measure on more rows")]
    return [(False, f"{what} {found} is under {setting} {bar:g} by {bar - found.value:.3f}")]


def _shuffled(evaluation: Evaluation, bar: float | None) -> list[tuple[bool, str]]:
    if bar is None:
        return []
    line = evaluation.line(SHUFFLED)
    if line is None:
        return [(False, f"shuffled texts were not measured, and maximum_shuffled_fve asks for {bar:g}")]
    if line.fve.high <= bar:
        return [(True, f"from shuffled texts FVE is {line.fve}, under maximum_shuffled_fve {bar:g}: the texts matter")]
    told = f"from shuffled texts FVE is {line.fve}, and maximum_shuffled_fve asks for {bar:g}: the texts hardly matter"
    return [(False, told)]


def _current(evaluation: Evaluation, current: Standing) -> tuple[bool, str]:
    own = evaluation.greedy.fve
    place = (evaluation.fingerprint, evaluation.layer)
    if current.fingerprint and place != (current.fingerprint, current.layer):
        return False, (
            f"the lens in force ({current.name}) reads layer {current.layer} of the model {current.fingerprint[:12]}, "
            f"and this one layer {evaluation.layer} of {evaluation.fingerprint[:12]}: they cannot be compared; set "
            "beat_current to false to replace it all the same"
        )
    other = "" if current.rows_digest in {"", evaluation.rows_digest} else ", which was measured on other rows"
    if own.high >= current.fve:
        return True, f"FVE {own} is not worse than the {current.fve:.3f} of the lens in force ({current.name}{other})"
    return False, f"FVE {own} is worse than the {current.fve:.3f} of the lens in force ({current.name}{other})"
