"""What several answers to one prompt agree on: clusters of equivalent answers, self-consistency, semantic entropy.

Agreement with the given answer is self-consistency (Wang et al. 2023). The entropy over clusters of equivalent answers
is the discrete semantic entropy of Farquhar et al. 2024: a cluster's probability is its share of the samples.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Literal

from wonder.trace.schema import AnswerCluster, SampleSummary
from wonder.trace.spans import value_spans

Equivalence = Callable[[str, str], bool]
"""Whether two answers mean the same. An answer is its values as canonical text: see `canonical_answer`."""

KEPT_CLUSTERS: Final = 8
KEPT_CHARACTERS: Final = 200


def same_values(one: str, other: str) -> bool:
    """Whether two canonical answers are equal."""
    return one == other


EQUIVALENCES: Final[Mapping[str, Equivalence]] = {"values": same_values}
"""What every engine knows; others are given to it by name (`TraceEngine(equivalences=…)`)."""


def canonical_answer(
    text: str, answer_format: Literal["json", "text"], value_fields: Collection[str] | None = None
) -> str:
    """An answer without what does not matter: letter case, spacing, the order of properties, fields not asked for.

    Args:
        text: What the model wrote.
        answer_format: Where the values are.
        value_fields: Dotted paths of the fields that count, with everything below them; None: all.

    Returns:
        JSON of the values by path, or the plain text; of an answer that does not parse, the whole text.
    """
    spans = value_spans(text, answer_format)
    if answer_format == "text" or not spans.values:
        return _plain(text)
    values = {path: _plain(text[span.start : span.stop]) for path, span in spans.values.items()}
    if value_fields is not None:
        values = {
            path: value
            for path, value in values.items()
            if any(path == wanted or path.startswith(f"{wanted}.") for wanted in value_fields)
        }
    return json.dumps(values, sort_keys=True, ensure_ascii=False)


def summarize(answer: str, samples: Sequence[str], equal: Equivalence, *, name: str, failed: int = 0) -> SampleSummary:
    """Cluster the samples, and compare them with the answer that was given.

    An answer joins the first cluster whose first member it is equivalent to, both ways around; that makes clusters
    well defined for an equivalence that is not quite transitive, such as mutual entailment.

    Args:
        answer: The given one, canonical.
        samples: The others, canonical; at least one.
        equal: The equivalence.
        name: What it is called.
        failed: Samples that could not be had.
    """

    def same(one: str, other: str) -> bool:
        return equal(one, other) and equal(other, one)

    clusters: list[list[str]] = []
    for sample in samples:
        home = next((cluster for cluster in clusters if same(cluster[0], sample)), None)
        if home is None:
            clusters.append([sample])
        else:
            home.append(sample)
    clusters.sort(key=len, reverse=True)
    shares = [len(cluster) / len(samples) for cluster in clusters]
    return SampleSummary(
        count=len(samples),
        failed=failed,
        equivalence=name,
        agreement=sum(same(answer, sample) for sample in samples) / len(samples),
        semantic_entropy_nats=abs(math.fsum(-share * math.log(share) for share in shares)),
        distinct=len(clusters),
        clusters=[
            AnswerCluster(answer=cluster[0][:KEPT_CHARACTERS], count=len(cluster))
            for cluster in clusters[:KEPT_CLUSTERS]
        ],
    )


def _plain(text: str) -> str:
    try:
        decoded: Any = json.loads(f'"{text}"')
    except ValueError:
        decoded = text
    return " ".join(str(decoded).split()).casefold()
