"""Temporal workflows that see what an open-weight model was thinking, and route on it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wonder.actions.act import act as act
    from wonder.actions.definition import ActionDef as ActionDef
    from wonder.errors import AnswerDoesNotParse as AnswerDoesNotParse
    from wonder.errors import ReviewTimedOut as ReviewTimedOut
    from wonder.errors import WonderError as WonderError
    from wonder.errors import WorkerMissing as WorkerMissing
    from wonder.plugin import WonderPlugin as WonderPlugin
    from wonder.review.ask import Reviewed as Reviewed
    from wonder.review.ask import human_review as human_review
    from wonder.review.audit import audit_review as audit_review
    from wonder.review.workflow import HumanReview as HumanReview
    from wonder.routing.context import Context as Context
    from wonder.routing.decision import RouteDecision as RouteDecision
    from wonder.routing.table import TransitionTable as TransitionTable
    from wonder.routing.transition import Transition as Transition
    from wonder.trace.artifacts import ArtifactRef as ArtifactRef
    from wonder.trace.capture import ThoughtCapture as ThoughtCapture
    from wonder.trace.injection import Injection as Injection
    from wonder.trace.sampling import Sampling as Sampling
    from wonder.trace.schema import AgentMessage as AgentMessage
    from wonder.trace.schema import ThoughtTrace as ThoughtTrace

_HOME = {
    "ActionDef": "wonder.actions.definition",
    "AgentMessage": "wonder.trace.schema",
    "AnswerDoesNotParse": "wonder.errors",
    "ArtifactRef": "wonder.trace.artifacts",
    "Context": "wonder.routing.context",
    "HumanReview": "wonder.review.workflow",
    "Injection": "wonder.trace.injection",
    "ReviewTimedOut": "wonder.errors",
    "Reviewed": "wonder.review.ask",
    "RouteDecision": "wonder.routing.decision",
    "Sampling": "wonder.trace.sampling",
    "ThoughtCapture": "wonder.trace.capture",
    "ThoughtTrace": "wonder.trace.schema",
    "Transition": "wonder.routing.transition",
    "TransitionTable": "wonder.routing.table",
    "WonderError": "wonder.errors",
    "WonderPlugin": "wonder.plugin",
    "WorkerMissing": "wonder.errors",
    "act": "wonder.actions.act",
    "audit_review": "wonder.review.audit",
    "human_review": "wonder.review.ask",
}
"""Public name → module. Names are fetched when they are asked for, so that `wonder.routing` needs no Temporal."""

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'wonder' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module  # noqa: PLC0415 - the table above is all that importing wonder does

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
