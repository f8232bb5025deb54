"""A review's search attributes, for namespaces that have them registered (`wonder.names.SEARCH_ATTRIBUTES`)."""

from contextvars import ContextVar
from typing import Any

from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from wonder.review.types import ReviewSummary

QUEUE = SearchAttributeKey.for_keyword("WonderQueue")
STATUS = SearchAttributeKey.for_keyword("WonderStatus")
ASSIGNEE = SearchAttributeKey.for_keyword("WonderAssignee")
MODEL = SearchAttributeKey.for_keyword("WonderModel")
CONFIDENCE = SearchAttributeKey.for_float("WonderConfidence")
DUE_AT = SearchAttributeKey.for_datetime("WonderDueAt")
CONCEPTS = SearchAttributeKey.for_keyword_list("WonderConcepts")

enabled: ContextVar[bool] = ContextVar("wonder_search_attributes", default=False)
"""Whether reviews opened by this run set them; `WonderPlugin(search_attributes=True)` says so for a worker."""

CONCEPT_THRESHOLD = 0.5
"""Concepts at least this likely are listed."""


def on_open(summary: ReviewSummary) -> list[SearchAttributeUpdate[Any]]:
    """What is set once."""
    found: list[SearchAttributeUpdate[Any]] = [QUEUE.value_set(summary.queue), DUE_AT.value_set(summary.due_at)]
    if summary.model:
        found.append(MODEL.value_set(summary.model))
    if summary.confidence is not None:
        found.append(CONFIDENCE.value_set(summary.confidence))
    if concepts := [name for name, chance in summary.concepts.items() if chance >= CONCEPT_THRESHOLD]:
        found.append(CONCEPTS.value_set(concepts))
    return [*found, *on_change(summary)]


def on_change(summary: ReviewSummary) -> list[SearchAttributeUpdate[Any]]:
    """What follows the item's state."""
    return [
        STATUS.value_set(summary.status),
        ASSIGNEE.value_set(summary.assignee) if summary.assignee else ASSIGNEE.value_unset(),
    ]
