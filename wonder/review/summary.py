"""An item as one row of a list, made from its request and its state."""

from wonder.review.types import ReviewRequest, ReviewState, ReviewSummary

CONCEPTS_SHOWN = 5
WHY_LIMIT = 200
"""A memo is best kept below 2 KB."""


def summarize(request: ReviewRequest, state: ReviewState, *, comments: int = 0) -> ReviewSummary:
    """What a list shows of an item: no prompt, no answer, the strongest concepts only."""
    trace = request.trace
    concepts = trace.active_concepts if trace else {}
    strongest = sorted(concepts, key=lambda name: (-concepts[name], name))[:CONCEPTS_SHOWN]
    return ReviewSummary(
        **{name: getattr(state, name) for name in ReviewState.model_fields},
        title=request.title,
        queue=request.queue,
        step=request.origin.step if request.origin else "",
        model=trace.model if trace else "",
        confidence=trace.overall_confidence if trace else None,
        confidence_status=trace.confidence_status if trace else "unknown",
        concepts={name: concepts[name] for name in strongest},
        why=why(request)[:WHY_LIMIT],
        comments=comments,
    )


def why(request: ReviewRequest) -> str:
    """Why a person is asked: the author's words, else those of the routing decision."""
    return request.why or (request.decision.explanation if request.decision else "")
