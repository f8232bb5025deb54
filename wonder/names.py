"""The names that live in workflow histories and therefore never change."""

import re
from typing import Final

HUMAN_REVIEW: Final = "wonder.HumanReview"
"""Workflow: one item waiting for a person."""

GRAPH: Final = "wonder.Graph"
"""Workflow: a table run as data."""

THINK: Final = "wonder.think"
"""Activity on a GPU queue: one model call with its trace."""

CONTEXT_QUERY: Final = "wonder.context"
"""Query that every workflow answers which has called `act`: its `Context` as JSON."""

AUDIT_PREFIX: Final = "audit/"
"""How the workflow ids of audits begin."""

PLUGIN: Final = "wonder.WonderPlugin"

WORKFLOW_QUEUE: Final = "wonder"
"""Task queue of workflows and CPU activities."""

EMBEDDED_MODEL: Final = "support-desk"
"""The model that ships with Wonder; the default of every action."""

SEARCH_ATTRIBUTES: Final[dict[str, str]] = {
    "WonderQueue": "Keyword",
    "WonderStatus": "Keyword",
    "WonderAssignee": "Keyword",
    "WonderModel": "Keyword",
    "WonderConfidence": "Double",
    "WonderDueAt": "Datetime",
    "WonderConcepts": "KeywordList",
}
"""Search attribute → Temporal type; registered by `wonder dev`, checked before they are used."""


def model_slug(model: str) -> str:
    """A model's name or folder as it appears in a queue name: lower case, `a-z 0-9 . -` only.

    `meta-llama/Llama-3.1-8B` becomes `meta-llama-llama-3.1-8b`.
    """
    return re.sub(r"[^a-z0-9.]+", "-", model.lower()).strip("-.") or "model"


def gpu_queue(model: str) -> str:
    """The task queue of the workers that have this model loaded."""
    return f"wonder-gpu.{model_slug(model)}"


def review_id(workflow_id: str, step: str, n: int) -> str:
    """The workflow id of the `n`th review (from 1) of a step of a run."""
    return f"review/{workflow_id}/{step}/{n}"


def audit_id(workflow_id: str, step: str, n: int) -> str:
    """The workflow id of the `n`th audit (from 1) of a step of a run."""
    return f"{AUDIT_PREFIX}{workflow_id}/{step}/{n}"
