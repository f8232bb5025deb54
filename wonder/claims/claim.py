"""`Claim`: a sentence about what the model was doing, with the evidence that a trace must show for and against it.

The evidence is two conditions over `thought_trace`. They decide nothing by themselves: a verdict counts only on a model
on which the claim has been *validated*, that is, compared with examples whose truth is known.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Annotated, Final, Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from wonder.claims.validation import ClaimValidation
from wonder.errors import ConditionError, DefinitionError
from wonder.routing import syntax
from wonder.routing.condition import Condition
from wonder.routing.env import Env
from wonder.routing.schema import Schema
from wonder.routing.syntax import Path
from wonder.trace.schema import ClaimResult, ThoughtTrace, Verdict
from wonder.wire import Probability, Settings

NO_EVIDENCE: Final = {
    ("attention_entropy",),
    ("attention_entropy_normalized",),
    ("attention_sink_mass",),
    ("signals", "attention_narrowness"),
}
"""Readings that support nothing alone: where truth was known by construction, the entropy of attention told close
alternatives from none with an AUROC of .46 to .51, and moved with the length of the prompt (docs/claims.md)."""


class Claim(Settings):
    """Something said of a trace: supported, refuted or undetermined, by evidence that is named.

    Frozen once built; conditions that cannot mean what they say are refused here.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    """How transitions call it: `thought_trace.claims.<name>.verdict`."""
    text: str
    """The sentence, named after what is measured: "close alternatives existed", not "the model considered"."""
    supported_when: str
    """A condition over `thought_trace`."""
    refuted_when: str | None = None
    """A condition over `thought_trace`; None: evidence can be absent, but never speak against it."""
    score: str | None = None
    """Path of a number of the trace that orders examples, `-` before it if a smaller one supports the claim; for the
    AUROC of a validation."""
    max_false_support: Probability = 0.05
    """Largest share of examples where the claim is false that a validation may have called supported."""
    max_false_refutation: Probability = 0.05
    """Largest share of examples where the claim holds that a validation may have called refuted."""
    validations: list[ClaimValidation] = Field(default_factory=list)
    """Measured; one per model."""

    def __init__(
        self,
        *,
        name: str,
        text: str,
        supported_when: str,
        refuted_when: str | None = None,
        score: str | None = None,
        max_false_support: float = 0.05,
        max_false_refutation: float = 0.05,
        validations: Sequence[ClaimValidation] = (),
    ) -> None:
        """Build a claim from its fields.

        Raises:
            DefinitionError: The name, a condition or a bar cannot work; the message says which and why.
        """
        try:
            super().__init__(
                name=name,
                text=text,
                supported_when=supported_when,
                refuted_when=refuted_when,
                score=score,
                max_false_support=max_false_support,
                max_false_refutation=max_false_refutation,
                validations=list(validations),
            )
        except ValidationError as error:
            found = error.errors()[0]
            place = ".".join(str(part) for part in found["loc"])
            told = found["msg"].removeprefix("Value error, ")
            raise DefinitionError(f"claim {name!r}, {place}: {told}" if place else told) from None

    _supported: Condition = PrivateAttr()
    _refuted: Condition | None = PrivateAttr(default=None)
    _score: Condition | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _compile(self) -> Self:
        self._supported = self._condition("supported_when", self.supported_when)
        if self.refuted_when is not None:
            self._refuted = self._condition("refuted_when", self.refuted_when)
        self._score = self._condition("score", f"{self.score.lstrip('- ')} > 0") if self.score else None
        if all(any(path.steps[: len(weak)] == weak for weak in NO_EVIDENCE) for path in _paths(self._supported)):
            raise DefinitionError(
                f"claim {self.name!r}: the entropy of attention alone supports nothing (see docs/claims.md): "
                "add a reading that was shown to, such as thought_trace.signals.min_margin"
            )
        return self

    def _condition(self, field: str, source: str) -> Condition:
        try:
            condition = Condition.compile(source)
        except ConditionError as error:
            raise DefinitionError(f"claim {self.name!r}, {field}: {error}") from None
        if condition.thresholds or any(path.root != "thought_trace" for path in _paths(condition)):
            raise DefinitionError(
                f"claim {self.name!r}, {field}: a claim is about a trace alone, so it may read thought_trace only"
            )
        return condition

    def check(self, schema: Schema) -> None:
        """Check the claim against what an action reads.

        Raises:
            ConditionError: The action does not read what the claim needs.
        """
        for source in filter(None, (self.supported_when, self.refuted_when)):
            try:
                Condition.compile(source, schema)
            except ConditionError as error:
                raise ConditionError(f"claim {self.name!r}: {error}") from None

    @cached_property
    def digest(self) -> str:
        """16 hex digits of the evidence; a validation belongs to it, and to no changed one."""
        parts = (self._supported.canonical, self._refuted.canonical if self._refuted else "", self.score or "")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def shown(self, trace: ThoughtTrace) -> Verdict:
        """What the evidence says, whether or not that means anything on this model."""
        env = Env(thought_trace=trace)
        supported = self._supported.evaluate(env)
        refuted = self._refuted.evaluate(env) if self._refuted else False
        if supported is True and refuted is False:
            return "supported"
        if refuted is True and supported is False:
            return "refuted"
        return "undetermined"

    def evaluate(self, trace: ThoughtTrace) -> ClaimResult:
        """What a trace shows of the claim, and whether that may decide anything."""
        env = Env(thought_trace=trace)
        readings = [condition.readings(env) for condition in (self._supported, self._refuted) if condition]
        shown = self.shown(trace)
        found, why_not = self.validation_for(trace.model_fingerprint, trace.model)
        unknown = {path: why for reading in readings for path, why in reading.unknown.items()}
        return ClaimResult(
            text=self.text,
            verdict=None if found is None else shown,
            shown=shown,
            reason=why_not or _reason(shown, unknown),
            evidence={path: value for reading in readings for path, value in reading.values.items()},
            notes=list(_notes(trace, (*_paths(self._supported), *(_paths(self._refuted) if self._refuted else ())))),
            claim=self.digest,
            validation="" if found is None else found.id,
        )

    def validation_for(self, fingerprint: str, model: str = "this model") -> tuple[ClaimValidation | None, str]:
        """The validation that lets the claim decide on a model, or why there is none."""
        found = next(
            (v for v in self.validations if v.claim == self.digest and v.model_fingerprint == fingerprint), None
        )
        if found is None:
            others = any(v.model_fingerprint == fingerprint for v in self.validations)
            change = "; its evidence has changed since" if others else ""
            return None, f"claim {self.name!r} was never validated on {model}{change}: run `wonder claims validate`"
        if found.too_small:
            return None, f"claim {self.name!r} was validated on {model} with too few examples: {found.too_small}"
        for what, value, bar in (
            ("supported where it is false", found.false_support, self.max_false_support),
            ("refuted where it holds", found.false_refutation, self.max_false_refutation),
        ):
            if value > bar:
                return (
                    None,
                    f"on {model}, claim {self.name!r} was {what} in {value:.1%} of the cases, more than {bar:.1%}",
                )
        return found, ""

    def score_of(self, trace: ThoughtTrace) -> float | None:
        """The number by which examples are ordered; None where it is unknown, or there is none."""
        if self.score is None or self._score is None:
            return None
        value = next(iter(self._score.readings(Env(thought_trace=trace)).values.values()), None)
        sign = -1 if self.score.startswith("-") else 1
        return sign * float(value) if isinstance(value, int | float) else None


def evaluate_claims(claims: Iterable[Claim], trace: ThoughtTrace) -> ThoughtTrace:
    """The trace with the results of these claims; a verdict that does not count leaves its reason in `missing`."""
    results = {claim.name: claim.evaluate(trace) for claim in claims}
    silent = {f"claims.{name}.verdict": result.reason for name, result in results.items() if result.verdict is None}
    return trace.model_copy(update={"claims": trace.claims | results, "missing": trace.missing | silent})


def _paths(condition: Condition) -> list[Path]:
    return [node for node in syntax.walk(condition.node) if isinstance(node, Path)]


def _reason(shown: Verdict, unknown: dict[str, str]) -> str:
    if unknown:
        path, why = next(iter(unknown.items()))
        return f"{path} is unknown: {why}"
    return {
        "supported": "the evidence for it is there, and none against it",
        "refuted": "the evidence against it is there, and none for it",
        "undetermined": "the evidence points neither way, or both",
    }[shown]


def _notes(trace: ThoughtTrace, paths: Iterable[Path]) -> Iterable[str]:
    """Where in the answer the evidence is, for a person."""
    if not any(
        path.steps[-1] in ("min_margin", "min_relative_margin", "mean_margin", "token_margins") for path in paths
    ):
        return
    tokens = {t for value in trace.field_confidences.values() for t in range(value.start, value.stop)}
    known = [(margin, t) for t, margin in enumerate(trace.token_margins) if t in tokens and margin is not None]
    for _, t in sorted(known)[:3]:
        best = trace.top_alternatives[t][:2] if t < len(trace.top_alternatives) else []
        if len(best) == 2:
            words = " / ".join(f"{item.token!r} {item.probability:.2f}" for item in best)
            yield f"token {t}: {words}"
