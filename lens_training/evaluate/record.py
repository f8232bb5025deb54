"""`Evaluation`: what was measured of a lens, beside what would be had without it; torch-free, `evaluation.json`."""

import json
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from lens_training.spec import Split
from wonder.errors import ArtifactCorrupt
from wonder.wire import NonNegative, Probability, WireModel, WireRecord

EVALUATION: Final = "evaluation.json"
REPORT: Final = "report.html"
ROWS: Final = "rows.json"
GREEDY: Final = "greedy"
SHUFFLED: Final = "shuffled"
CLAIM_ROWS: Final = 4096
"""Fewer rows leave the fraction of variance explained too uncertain for a claim."""

DISTINCT_ROWS: Final = 512
"""Among so many texts at most the different ones are counted, so that the share does not fall with the rows."""

Group = Literal["lens", "other_texts", "true_words", "no_text"]
"""`lens`: its own texts. `other_texts`: texts that were tampered with, read by the lens's encoder. `true_words`: the
words that were really there, quoted. `no_text`: what needs no words at all."""
Weights = Literal["newest", "average"]


class Figure(WireRecord):
    """A number with its 95 % interval over documents."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Line(WireRecord):
    """One way to come to a reconstruction, measured on the same rows as every other."""

    name: str
    title: str
    group: Group
    note: str = ""
    """How it is made, in a sentence."""
    fve: Figure
    """Fraction of variance explained: 1 − Σ‖A − Â‖² / Σ‖A − mean‖², the mean that of the training rows."""
    r2: Figure
    """The same against the mean of the measured rows themselves."""
    r2_median: float
    """Median over dimensions of the fraction explained: a few large dimensions cannot carry it."""
    norm_ratio: Figure
    """Mean of ‖Â‖ / ‖A‖."""
    cosine: Figure
    """Mean of centred vectors; uncentred, even shuffled texts come near 1."""
    kl_recovered: Figure | None = None
    """1 − KL(own ‖ with Â) / KL(own ‖ with the mean) of the target's next token."""
    agreement: Figure | None = None
    """Share of rows whose likeliest next token stays."""
    ahead: Figure | None = None
    """Fraction of variance explained by the lens's greedy text minus this one's, over the same draws of documents."""
    nll_nats: Figure | None = None
    """Per token of its texts, under the target after a neutral prefix of one token."""
    distinct_share: Probability | None = None
    """Of its texts on the first `DISTINCT_ROWS` rows, those that are different."""
    bits: NonNegative | None = None
    """Of what stands in for a text."""
    repeats: int = Field(1, ge=1)
    """Draws whose figures are averaged."""


class SelfTest(WireRecord):
    """Putting an activation in its own place must change nothing."""

    kl_mean_nats: float
    kl_max_nats: float
    tolerance_nats: float
    kl_stored_nats: float
    """Mean over rows of putting the stored activation there: what its rounding costs."""

    @property
    def passed(self) -> bool:
        """Whether the replacement can be trusted."""
        return self.kl_max_nats <= self.tolerance_nats


class Texts(WireRecord):
    """What the texts themselves are like."""

    length: int
    """Tokens of each."""
    nll_tail_nats: Figure
    """Per token of the true words before the position, as `Line.nll_nats`."""
    nll_random_nats: Figure
    entropy_nats: float
    """Mean entropy of the decoder's next token along drawn texts."""
    distinct_tail_share: Probability
    bits_most: NonNegative
    """At most so many bits are in a greedy text: the smaller of the sum over its places of the entropy of the tokens
    that rows have there, and its code length under the target. Greedy texts follow from the activation, so all their
    entropy is about it."""
    bits_least: NonNegative
    """Entropy of the texts as they fell, which is at most log2 of the rows."""


class BestOf(WireRecord):
    """The best of k drawn texts, chosen by whoever knows the activation."""

    k: int
    fve: Figure


class Slice(WireRecord):
    """The greedy text on some of the rows."""

    name: str
    rows: int
    fve: Figure | None
    """None: too few documents for an interval."""
    error_share: Probability
    """Of the squared error of all rows."""


class Reading(WireRecord):
    """A label read from something."""

    name: str
    title: str
    accuracy: Figure
    auroc: Figure | None = None
    """Mean over the classes, each against the rest; None: a class is missing among the rows."""


class ProbeResult(WireRecord):
    """Whether what the activation is about can be read from the reconstruction: semantic beside token recovery."""

    label: str
    classes: int
    train_rows: int
    rows: int
    chance: Probability
    """Accuracy of always naming the commonest class."""
    readings: list[Reading]


class NextToken(WireRecord):
    """A token that the target may say next."""

    token: str
    probability: Probability


class Sample(WireRecord):
    """One row: where it comes from, and what the lens says of it."""

    kind: Literal["best", "median", "worst", "random"]
    document: int
    position: int
    context: str
    """The last words before the position."""
    current: str = ""
    """The token at the position."""
    text: str
    """Greedy."""
    drawn: str = ""
    """Another text for the same activation."""
    error: NonNegative
    """‖A − Â‖² / variance: 0 is perfect, 1 what the mean gives on average."""
    kl_nats: float | None = None
    own_next: list[NextToken] = Field(default_factory=list)
    replaced_next: list[NextToken] = Field(default_factory=list)


class Evaluation(WireModel):
    """A judgement of one checkpoint."""

    kind: Literal["lens.evaluation"] = "lens.evaluation"
    run: str
    spec_digest: str
    """Of what decided the weights (`RunSpec.training_digest`)."""
    judged_by: str
    """Digest of how it was judged."""
    checkpoint: str
    checkpoint_digest: str
    step: int
    steps: int
    """Of the whole run."""
    weights: Weights
    model: str
    fingerprint: str
    layer: int
    d_model: int
    data_digest: str
    """Of the manifest of the dump."""
    rows_digest: str
    """SHA-256 of the measured states: two lenses compare only on the same ones."""
    split: Split
    rows: int
    documents: int
    kl_mean_nats: NonNegative
    """KL(own ‖ with the mean activation): the denominator of every `kl_recovered`."""
    self_test: SelfTest
    lines: list[Line]
    texts: Texts
    best_of: list[BestOf] = Field(default_factory=list)
    slices: dict[str, list[Slice]] = Field(default_factory=dict)
    probes: list[ProbeResult] = Field(default_factory=list)
    samples: list[Sample] = Field(default_factory=list)
    settings: dict[str, str] = Field(default_factory=dict)
    """Every setting of the run by its dotted name, so that two runs can be told apart."""
    warnings: list[str] = Field(default_factory=list)
    """What a reader has to know before believing a number."""
    seconds: NonNegative = 0.0
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT")] = "1970-01-01T00:00:00Z"

    def line(self, name: str) -> Line | None:
        """The line of that name."""
        return next((line for line in self.lines if line.name == name), None)

    def summary(self) -> dict[str, str | int | float]:
        """What fits on a screen."""
        own, shuffled = self.greedy, self.line(SHUFFLED)
        found: dict[str, str | int | float] = {
            "kind": self.kind,
            "checkpoint": self.checkpoint,
            "rows": self.rows,
            "fve": str(own.fve),
            "kl": "not measured" if own.kl_recovered is None else str(own.kl_recovered),
            "shuffled": "not measured" if shuffled is None else str(shuffled.fve),
            "self_test": "passed" if self.self_test.passed else "failed",
        }
        return found | {f"note {at}": sentence for at, sentence in enumerate(self.warnings, 1)}

    @property
    def greedy(self) -> Line:
        """The lens itself: its likeliest text."""
        found = self.line(GREEDY)
        assert found is not None
        return found


class RowErrors(WireModel):
    """`rows.json`: the greedy text row by row, so that two lenses can be compared on the same draws of documents."""

    rows_digest: str
    document: list[int]
    error: list[float]
    """‖A − Â‖²."""
    spread: list[float]
    """‖A − mean‖²."""
    kl: list[float]
    """KL(own ‖ with Â), nats."""


def read_rows(folder: Path, evaluation: Evaluation) -> RowErrors | None:
    """The rows of an evaluation; None where they are gone, or another one's."""
    try:
        found = RowErrors.model_validate(json.loads((folder / ROWS).read_bytes()))
    except (FileNotFoundError, ValueError, ValidationError):
        return None
    return found if found.rows_digest == evaluation.rows_digest else None


def read_evaluation(folder: Path) -> Evaluation | None:
    """The evaluation in a run's folder; None before there is one.

    Raises:
        ArtifactCorrupt: There is a file, and it is none.
    """
    path = folder / EVALUATION
    try:
        return Evaluation.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, ValidationError) as error:
        raise ArtifactCorrupt(
            f"{path} is no evaluation ({str(error).splitlines()[0]}): remove it and evaluate again"
        ) from None
