"""A lens's training as people see it on a terminal and in the Temporal UI, and what of it a run carries along."""

import time

from lens_training.job.details import markdown
from lens_training.job.memory import NOTE_CHARACTERS, NOTES_KEPT
from wonder.cli import lens_training_text as text
from wonder.cli.__main__ import parser
from wonder.training.types import ArmResult, Carried, LensProgress, LensReport, LensResult, SweepResult

TRAINING = LensProgress(
    name="stories",
    stage="train",
    pool="gpu-a",
    folder="/data/run",
    segment=3,
    attempt=1,
    step=640,
    steps=1200,
    checkpoint=600,
    rate_scale=0.5,
    report=LensReport(
        stage="train",
        job="ab12",
        node="node7",
        state="running",
        step=640,
        loss=2.3456,
        metrics={"fve": 0.7123},
        phase="grpo",
        steps_per_s=12.3,
        eta_s=45.6,
    ),
    notes=["2026-11-20 16:03:11 train: lost on node7 (\x1b[31mbad\x1b[0m): goes on from 600"],
)


def test_a_run_is_a_block_on_a_terminal_that_nothing_it_quotes_can_steer() -> None:
    assert text.status(TRAINING, colour=False) == [
        "stories  running · train",
        "  █████████████░░░░░░░░░░░ 640 of 1,200 steps · 12.3 steps/s · 46 s to go",
        "  pool      gpu-a",
        "  folder    /data/run",
        "  segment   3, attempt 2 · checkpoint at step 600",
        "  changed   learning rates × 0.5",
        "  job       ab12 on node7 running",
        "  loss      2.346 (grpo) · fve 0.7123",
        "",
        "  on the way",
        "    2026-11-20 16:03:11 train: lost on node7 (\\x1b[31mbad\\x1b[0m): goes on from 600",
    ]
    assert text.line(TRAINING) == "stories: running · train · step 640 of 1,200 · loss 2.346"


def test_a_stage_that_counts_rows_shows_them_and_how_old_its_report_is() -> None:
    report = LensReport(
        stage="dump", part="3/8", job="ab12", done=1200, total=4800, unit="rows", eta_s=130, time=time.time() - 61
    )
    lines = text.status(TRAINING.model_copy(update={"stage": "dump", "report": report, "notes": []}), colour=False)
    assert lines[1] == "  ██████░░░░░░░░░░░░░░░░░░ 1,200 of 4,800 rows · 2 min 10 s to go"
    assert "(slice 3/8)" in lines[-1]
    assert "last report 1 min 1 s ago" in lines[-1]


def test_results_and_sweeps_say_what_became_of_them() -> None:
    refused = LensResult(
        outcome="refused", folder="/data/run", step=9, steps=9, segments=2, restarts=1, reasons=["why"]
    )
    assert text.result(refused)[0] == "refused after 9 of 9 steps in 2 segments; 1 jobs were started again"
    assert text.result(refused)[-1] == "  refused   why"
    arms = [ArmResult(arm="short", outcome="evaluated", fve=0.8, step=9), ArmResult(arm="long", outcome="failed")]
    table = text.sweep(SweepResult(arms=arms, best="short", registered=True))
    assert table[1].split() == ["short", "evaluated", "0.800", "–", "9"]
    assert table[-1] == "short is registered"
    assert text.sweep(SweepResult(arms=arms))[-1] == "no arm passed its gate"


def test_the_temporal_ui_shows_the_same_as_a_table() -> None:
    shown = markdown(TRAINING)
    assert shown.startswith("### stories: running · train")
    assert "640 of 1,200 steps (53 %)" in shown
    assert "| learning rates | × 0.5, after the loss was no number |" in shown


def test_what_a_run_carries_into_a_new_history_is_small() -> None:
    full = Carried(notes=["x" * (NOTE_CHARACTERS + 20)] * NOTES_KEPT)
    assert len(full.model_dump_json()) <= 10_000


def test_the_commands_take_what_the_manual_says() -> None:
    found = parser().parse_args(["lens", "train", "c.json", "--pool", "gpu-a", "--wait"])
    assert (found.pool, found.wait, found.until, found.needs_client) == ("gpu-a", True, "register", True)
    assert parser().parse_args(["lens", "extend", "stories", "--steps", "5"]).steps == 5
    assert parser().parse_args(["lens", "status", "stories", "--watch", "--json"]).watch
    assert parser().parse_args(["lens", "schedule", "c.json", "--cron", "0 3 * * 0"]).overlap == "skip"
