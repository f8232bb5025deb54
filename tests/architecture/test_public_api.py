"""What people import from `wonder`; a name that appears or goes is a decision, so it is written down here."""

import re
from pathlib import Path

import wonder

PUBLIC = [
    "ActionDef",
    "AgentMessage",
    "AnswerDoesNotParse",
    "ArtifactRef",
    "Context",
    "HumanReview",
    "Injection",
    "ReviewTimedOut",
    "Reviewed",
    "RouteDecision",
    "Sampling",
    "ThoughtCapture",
    "ThoughtTrace",
    "Transition",
    "TransitionTable",
    "WonderError",
    "WonderPlugin",
    "WorkerMissing",
    "act",
    "audit_review",
    "human_review",
]


def test_the_public_names_are_exactly_these() -> None:
    assert wonder.__all__ == PUBLIC


def test_every_public_name_is_there_and_lives_where_the_table_says() -> None:
    for name in PUBLIC:
        assert getattr(wonder, name).__module__ == wonder._HOME[name]


def test_type_checkers_see_the_same_names_as_the_interpreter() -> None:
    source = Path(wonder.__file__).read_text()
    seen = dict(re.findall(r"^    from (\S+) import (\w+) as \w+$", source, re.MULTILINE))
    assert sorted(re.findall(r"^    from \S+ import (\w+) as \w+$", source, re.MULTILINE)) == PUBLIC
    assert set(seen) == set(wonder._HOME.values())


def test_the_fixed_names_of_histories_have_not_moved() -> None:
    from wonder import names

    assert names.HUMAN_REVIEW == "wonder.HumanReview"
    assert names.GRAPH == "wonder.Graph"
    assert names.LENS_TRAINING == "wonder.LensTraining"
    assert names.LENS_SWEEP == "wonder.LensSweep"
    assert names.LENS_PROGRESS_QUERY == "wonder.lens_progress"
    assert names.LENS_REPORT_SIGNAL == "wonder.lens_report"
    assert (names.SUBMIT_JOB, names.WATCH_JOB, names.STOP_JOB) == (
        "wonder.submit_job",
        "wonder.watch_job",
        "wonder.stop_job",
    )
    assert names.train_queue("GPU a") == "wonder-train.gpu-a"
    assert names.lens_run_id("stories") == "lens/stories"
    assert names.THINK == "wonder.think"
    assert names.WORKFLOW_QUEUE == "wonder"
    assert names.PLUGIN == "wonder.WonderPlugin"
    assert names.CONTEXT_QUERY == "wonder.context"
    assert names.gpu_queue("support-desk") == "wonder-gpu.support-desk"
    assert names.gpu_queue("meta-llama/Llama-3.1-8B") == "wonder-gpu.meta-llama-llama-3.1-8b"
    assert names.review_id("w", "classify", 1) == "review/w/classify/1"
    assert names.audit_id("w", "classify", 1) == "audit/w/classify/1"
    assert sorted(names.SEARCH_ATTRIBUTES) == [
        "WonderAssignee",
        "WonderConcepts",
        "WonderConfidence",
        "WonderDueAt",
        "WonderModel",
        "WonderQueue",
        "WonderStatus",
    ]
