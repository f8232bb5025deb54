"""`CalibrationBundle`: one action's calibration on one model revision; small, immutable, named by its content."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import Field, ValidationError

from wonder.calibration.certify import DEFAULT_DELTA, Certification, Certified, NotCertified, certify
from wonder.calibration.maps import CalibrationMap, StackedMap
from wonder.errors import CorruptBundle
from wonder.trace.schema import ThoughtTrace
from wonder.wire import NonNegative, Probability, WireModel, WireRecord

BUNDLE_LIMIT_BYTES: Final = 4096
"""A bundle travels with every answer of its action, so it stays small."""
PROVISIONAL_BELOW: Final = 100
"""A calibration from fewer labels says so."""
STACKED: Final = "stacked"
"""The `signal` of a bundle whose map reads several."""


class Scores(WireRecord):
    """How good probabilities are on labelled answers that played no part in fitting them."""

    ece: Probability
    """Expected calibration error over 15 bins of equal weight."""
    brier: Probability
    log_loss: NonNegative


class HeldOut(WireRecord):
    """Scores before and after, on held-out answers, weighted to stand for the traffic."""

    labels: int
    before: Scores | None = None
    """Of the raw signal taken for a probability; None for a map of several signals."""
    after: Scores
    candidates: dict[str, float] = Field(default_factory=dict)
    """Map → held-out log-loss of each that was tried; the lowest was chosen."""


class CalibrationBundle(WireModel):
    """A map, what it fits, what it was made from, and what can be certified from the same labels."""

    id: str = ""
    """sha256 of the rest in canonical JSON."""
    action: str
    model: str
    model_revision: str = ""
    model_fingerprint: str = ""
    """Digest of the weights; a calibration of another one is not applied."""
    signal: str
    """The confidence method whose raw value the map reads, or `stacked`."""
    map: CalibrationMap
    labels: int = Field(ge=0)
    """Labelled answers it was made from."""
    wrong: int = Field(ge=0)
    effective_labels: NonNegative | None = None
    """How many equally weighted labels they are worth, after correcting for which answers people looked at."""
    since: datetime | None = None
    """When the oldest of those answers was given."""
    until: datetime | None = None
    held_out: HeldOut | None = None
    certification: Certification | None = None
    shares: list[Probability] = Field(default_factory=list, max_length=21)
    """Quantiles 0, 5, … 100 % of the calibrated probability over the traffic, for `for_share`."""
    reference: dict[str, Annotated[list[float], Field(min_length=2, max_length=21)]] = Field(
        default_factory=dict, max_length=4
    )
    """Signal → quantiles 0, 5, … 100 % of its raw values over the same traffic: what drift is measured against."""
    created_at: datetime
    parent: str | None = None
    """Id of the bundle it replaces."""

    @classmethod
    def named(cls, **fields: Any) -> Self:
        """A bundle with its id filled in.

        Raises:
            ValidationError: A field is wrong.
        """
        bundle = cls(**fields)
        return bundle.model_copy(update={"id": digest(bundle.document())})

    def document(self) -> dict[str, Any]:
        """The bundle as the JSON that is stored and hashed; fields at their defaults are left out."""
        document = self.model_dump(mode="json", exclude_defaults=True)
        # The kind is the one default that a reader cannot do without.
        return document | {"map": {"kind": self.map.kind, **document["map"]}}

    def misfit(self, trace: ThoughtTrace) -> str | None:
        """Why this calibration must not be applied to a trace; None if it may."""
        if self.action != trace.action:
            return f"it was made for the action {self.action!r}"
        if self.model_fingerprint and trace.model_fingerprint:
            if self.model_fingerprint != trace.model_fingerprint:
                return (
                    f"it was made on other weights ({_short(self.model_fingerprint)}; "
                    f"this model has {_short(trace.model_fingerprint)})"
                )
        elif (self.model, self.model_revision) != (trace.model, trace.model_revision):
            return f"it was made on {_named(self.model, self.model_revision)}, not on this model"
        if not isinstance(self.map, StackedMap) and self.signal != trace.confidence_method:
            return f"it reads {self.signal!r}, and this trace has {trace.confidence_method!r}"
        return None

    def certified(self, risk: float, delta: float = DEFAULT_DELTA) -> Certified | NotCertified:
        """The calibrated probability from which answers may be accepted so that at most `risk` of them are wrong.

        Certified on the signal itself and carried through the map, which rises strictly: what lies at or above the
        one lies at or above the other.
        """
        if self.certification is None:
            return NotCertified("its calibration was made without counts to certify from: calibrate again", None)
        found = certify(self.certification, risk, delta)
        if isinstance(found, NotCertified) or self.certification.scale == "probability":
            return found
        assert not isinstance(self.map, StackedMap)
        return Certified(self.map.at(found.threshold).value, found.kept, found.wrong, found.share)

    def for_share(self, share: float) -> float | None:
        """The calibrated probability below which this share of the traffic lies; None if it is not known."""
        if len(self.shares) < 2 or not 0 <= share <= 1:
            return None
        place = share * (len(self.shares) - 1)
        left = min(int(place), len(self.shares) - 2)
        low, high = self.shares[left], self.shares[left + 1]
        return low + (place - left) * (high - low)


def digest(document: Mapping[str, Any]) -> str:
    """The id of a bundle's document: sha256 of canonical JSON without its id."""
    rest = {key: value for key, value in document.items() if key != "id"}
    return hashlib.sha256(canonical(rest)).hexdigest()


def canonical(document: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys and no spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def read_bundle(content: bytes, where: str) -> CalibrationBundle:
    """A bundle from its stored bytes; the digest is checked before anything is believed.

    Raises:
        CorruptBundle: It is no calibration, or was changed.
    """
    if len(content) > BUNDLE_LIMIT_BYTES:
        raise CorruptBundle(f"{where} has {len(content)} bytes, a calibration at most {BUNDLE_LIMIT_BYTES}")
    try:
        document = json.loads(content)
        found = digest(document)
        if found != document.get("id"):
            raise CorruptBundle(
                f"{where} says it is {_short(str(document.get('id')))} and its content is {_short(found)}: "
                "it was changed; restore it or calibrate again"
            )
        return CalibrationBundle.model_validate(document)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        said = _first(error) if isinstance(error, ValidationError) else str(error)
        raise CorruptBundle(f"{where} is not a calibration ({said}): restore it or calibrate again") from None


def _first(error: ValidationError) -> str:
    item = error.errors()[0]
    return f"{'.'.join(map(str, item['loc']))}: {item['msg']}"


def _short(id: str) -> str:
    return id[:12]


def _named(model: str, revision: str) -> str:
    return f"{model}@{revision}" if revision else model
