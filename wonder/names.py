"""The names that live in workflow histories and therefore never change."""

import re
from typing import Final

HUMAN_REVIEW: Final = "wonder.HumanReview"
"""Workflow: one item waiting for a person."""

GRAPH: Final = "wonder.Graph"
"""Workflow: a table run as data."""

LENS_TRAINING: Final = "wonder.LensTraining"
"""Workflow: a lens from texts to the registry."""

LENS_SWEEP: Final = "wonder.LensSweep"
"""Workflow: several such runs that differ in some settings."""

LENS_PROGRESS_QUERY: Final = "wonder.lens_progress"
"""Query of a lens's run: how it stands."""

LENS_REPORT_SIGNAL: Final = "wonder.lens_report"
"""Signal by which whoever watches a job tells the run how far it is."""

SUBMIT_JOB: Final = "wonder.submit_job"
WATCH_JOB: Final = "wonder.watch_job"
STOP_JOB: Final = "wonder.stop_job"
"""Activities on the queue of a pool: start a job, follow it to its end, end it with a checkpoint."""

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


def train_queue(pool: str) -> str:
    """The task queue of the workers that run a pool's training jobs."""
    return f"wonder-train.{model_slug(pool)}"


def lens_run_id(name: str) -> str:
    """The workflow id of a lens's run, where none was chosen: a lens has one run at a time."""
    return f"lens/{name}"


def review_id(workflow_id: str, step: str, n: int) -> str:
    """The workflow id of the `n`th review (from 1) of a step of a run."""
    return f"review/{workflow_id}/{step}/{n}"


def audit_id(workflow_id: str, step: str, n: int) -> str:
    """The workflow id of the `n`th audit (from 1) of a step of a run."""
    return f"{AUDIT_PREFIX}{workflow_id}/{step}/{n}"
