"""Whether a lens may come into force: bars that its measured figures must reach, and the lens it would replace."""

from dataclasses import dataclass

from wonder.lens.manifest import LensManifest
from wonder.trace.explanation import Fidelity


@dataclass(frozen=True)
class Bars:
    """What a lens must reach; None is not asked."""

    minimum_fve: float | None = None
    """Of the lower bound of its interval."""
    minimum_kl_recovered: float | None = None
    """The same."""
    maximum_shuffled_fve: float | None = 0.0
    """A lens whose texts do not matter reads as well from shuffled ones."""
    beat_current: bool = True
    """Not worse than the lens in force: the upper bound of its interval reaches that lens's value."""


@dataclass(frozen=True)
class Verdict:
    """What the gate found."""

    passed: bool
    reason: str
    """One sentence."""


def judge(candidate: LensManifest, champion: LensManifest | None, bars: Bars) -> Verdict:
    """Hold a lens against bars, and against the one in force."""
    mine = candidate.metrics
    shuffled = mine.controls.get("shuffled")
    if bars.maximum_shuffled_fve is not None:
        if shuffled is None:
            return Verdict(False, f"{candidate.id} was not measured with shuffled texts: evaluate it with controls")
        if shuffled.high > bars.maximum_shuffled_fve:
            return Verdict(
                False,
                f"the texts of {candidate.id} hardly matter: shuffled ones explain {_told(shuffled)} of the variance, "
                f"and the upper bound must not exceed {bars.maximum_shuffled_fve:.3f}",
            )
    floor = 0.0 if bars.minimum_fve is None else bars.minimum_fve
    if mine.fve.low < floor:
        return Verdict(
            False,
            f"{candidate.id} explains {_told(mine.fve)} of the variance, and the lower bound must reach {floor:.3f}",
        )
    if (bar := bars.minimum_kl_recovered) is not None:
        kl = mine.kl_recovered
        if kl is None or kl.low < bar:
            found = "not measured" if kl is None else _told(kl)
            return Verdict(
                False, f"KL recovered of {candidate.id} is {found}, and the lower bound must reach {bar:.3f}"
            )
    if champion is None or not bars.beat_current:
        return Verdict(True, f"it explains {_told(mine.fve)} of the variance")
    theirs = champion.metrics
    if candidate.target.layer != champion.target.layer or mine.data_sha256 != theirs.data_sha256:
        return Verdict(
            False,
            f"{candidate.id} and {champion.id}, which is in force, were measured on different states: evaluate both on "
            "the same ones, or set a bar and do not compare",
        )
    compared = f"{_told(mine.fve)} of the variance against {theirs.fve.value:.3f}"
    if mine.fve.high < theirs.fve.value:
        return Verdict(False, f"{candidate.id} is worse than {champion.id}, which is in force: {compared}")
    return Verdict(True, f"not worse than {champion.id}: {compared}")


def _told(found: Fidelity) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
