"""What `wonder calibrate` prints."""

from collections import Counter
from collections.abc import Sequence

from wonder.calibration.bundle import CalibrationBundle, Scores
from wonder.calibration.certify import NotCertified
from wonder.calibration.registry import Drift
from wonder.learning.calibrate import Calibrated
from wonder.learning.drift import Check
from wonder.learning.gate import Verdict
from wonder.learning.scoring import Bin

BAR = 30
"""Characters of the longest bar."""


def lines(
    found: Calibrated, verdict: Verdict, risks: Sequence[float], delta: float, skipped: Counter[str]
) -> list[str]:
    """A calibration for a terminal."""
    bundle, held = found.bundle, found.bundle.held_out
    told = [_title(bundle), f"labels      {bundle.labels} judged, {bundle.wrong} of them wrong{_worth(bundle)}"]
    told += [f"left out    {count} reviews: {reason}" for reason, count in skipped.most_common()]
    if bundle.since and bundle.until:
        told.append(f"from        {bundle.since:%Y-%m-%d} to {bundle.until:%Y-%m-%d}")
    if held is not None:
        others = ", ".join(f"{kind} {loss:.4f}" for kind, loss in sorted(held.candidates.items(), key=lambda x: x[1]))
        told.append(f"map         {bundle.map.kind} (held-out log-loss: {others})")
        told += _scores(held.before, held.after)
    told += [_risk(bundle, risk, delta) for risk in risks]
    told += _reliability(found.after)
    told.append(f"gate        {'passed' if verdict.passed else 'NOT PASSED'}: {verdict.reason}")
    return told


def checks(bundle: CalibrationBundle, found: Sequence[Check], known: Drift | None) -> list[str]:
    """The drift monitor for a terminal."""
    told = [f"{_title(bundle)}, calibration {bundle.id[:12]}"]
    if known is not None:
        told.append(f"out of force since {known.found_at:%Y-%m-%d %H:%M}: {known.because}")
    told += [f"{'DRIFT' if check.drifted else 'holds':<6} {check.kind:<11} {check.told}" for check in found]
    return told


def _title(bundle: CalibrationBundle) -> str:
    weights = f" ({bundle.model_fingerprint[:12]})" if bundle.model_fingerprint else ""
    revision = f"@{bundle.model_revision}" if bundle.model_revision else ""
    return f"{bundle.action} on {bundle.model or 'any model'}{revision}{weights}, signal {bundle.signal}"


def _worth(bundle: CalibrationBundle) -> str:
    worth = bundle.effective_labels
    if worth is None or worth > 0.99 * bundle.labels:
        return ""
    return f"; worth {worth:.0f} evenly drawn ones, because people look at some answers more often than at others"


def _scores(before: Scores | None, after: Scores) -> list[str]:
    told = ["held out    " + ("raw      calibrated" if before else "calibrated")]
    for name, field in (("ECE", "ece"), ("Brier", "brier"), ("log-loss", "log_loss")):
        old = f"{getattr(before, field):.4f}   " if before else ""
        told.append(f"  {name:<10}{old}{getattr(after, field):.4f}")
    return told


def _risk(bundle: CalibrationBundle, risk: float, delta: float) -> str:
    found = bundle.certified(risk, delta)
    head = f"risk {risk:<7g}"
    if isinstance(found, NotCertified):
        return f"{head}{found.reason}"
    return (
        f"{head}accept from {found.threshold:.4f} on (δ {delta:g}): {found.share:.0%} of the answers; "
        f"{found.wrong} of {found.kept} labelled ones there are wrong"
    )


def _reliability(after: Sequence[Bin]) -> list[str]:
    told = ["reliability  said   right"]
    for item in after:
        filled = round(item.accuracy * BAR)
        mark = min(round(item.confidence * BAR), BAR - 1)
        bar = "".join("│" if i == mark else "█" if i < filled else "·" for i in range(BAR))
        told.append(f"             {item.confidence:.3f}  {item.accuracy:.3f}  {bar}")
    told.append("             (│ where the bar would end if the confidence were exact)")
    return told
